// Which microbatches a rank computes, such that the tree of the gradient sum falls into what a rank sums
// by itself and what is summed over ranks.

import Basics

/// `microbatchCount` microbatches over `rankCount` ranks.
package struct MicrobatchShare: Equatable, Sendable {
  package enum Order: Equatable, Sendable {
    /// Contiguous ranges that differ by at most one: a rank's sum is a part of the tree (an aligned
    /// subtree when both counts are powers of two), and is sent once.
    case contiguous
    /// Round by round: ranks are cut into equal groups with contiguous ranges; rank r of a group of n
    /// has r, r + n, … of its group's, and each round is summed over the group.
    case interleaved(groups: Int)
  }

  package let microbatchCount: Int
  package let rankCount: Int
  package let order: Order

  /// - Throws: `moreRanksThanMicrobatches`: a rank without work would have no partial sum;
  ///   `doesNotDivide` where rounds would not be full.
  package init(
    microbatchCount: Int, rankCount: Int, order: Order = .contiguous
  ) throws(MeshLayoutError) {
    require(
      microbatchCount > 0 && rankCount > 0,
      "\(microbatchCount) microbatches over \(rankCount) ranks: both must be positive")
    guard rankCount <= microbatchCount else {
      throw MeshLayoutError(
        code: .moreRanksThanMicrobatches,
        message: """
          \(rankCount) ranks, but a step has only \(microbatchCount) microbatches: start at most \
          \(microbatchCount) ranks, or raise the number of microbatches to \(rankCount) or more
          """)
    }
    if case .interleaved(let groups) = order {
      require(rankCount % groups == 0, "\(rankCount) ranks in \(groups) groups")
    }
    guard order == .contiguous || microbatchCount % rankCount == 0 else {
      throw MeshLayoutError(
        code: .doesNotDivide,
        message: """
          \(rankCount) data-parallel ranks sum the gradients of every round of microbatches, but do \
          not divide the \(microbatchCount) of a step: take a number that they divide, or ZeRO stage 1
          """)
    }
    self.microbatchCount = microbatchCount
    self.rankCount = rankCount
    self.order = order
  }

  /// The microbatches of `rank`, in rising order.
  package func microbatches(of rank: Int) -> [Int] {
    switch order {
    case .contiguous:
      return Array(evenRange(of: microbatchCount, part: rank, partCount: rankCount))
    case .interleaved(let groups):
      let size = rankCount / groups
      let own = evenRange(of: microbatchCount, part: rank / size, partCount: groups)
      return Array(stride(from: own.lowerBound + rank % size, to: own.upperBound, by: size))
    }
  }

  /// The microbatches that a rank's group computes at the same time as this one.
  package func round(of microbatch: Int) -> [Int] {
    guard case .interleaved(let groups) = order else { return [microbatch] }
    let size = rankCount / groups
    // A group has whole rounds, so that rounds are counted from 0 on.
    let first = microbatch / size * size
    return Array(first..<first + size)
  }

  /// The rank that computes `microbatch`.
  package func owner(of microbatch: Int) -> Int {
    require(
      microbatch >= 0 && microbatch < microbatchCount,
      "microbatch \(microbatch) of \(microbatchCount)")
    return switch order {
    case .contiguous: ((microbatch + 1) * rankCount - 1) / microbatchCount
    case .interleaved(let groups):
      microbatch / (microbatchCount / groups) * (rankCount / groups)
        + microbatch % (rankCount / groups)
    }
  }

  /// Whether the sum is promised to have the same bits as on one rank: true with one rank, and when
  /// what a rank, or a round and a group, sum are subtrees: as many as a power of two.
  /// False: the bits may differ (some uneven shares happen to fit the tree too).
  package var preservesBits: Bool {
    if rankCount == 1 { return true }
    switch order {
    case .contiguous:
      let share = microbatchCount / rankCount
      return share * rankCount == microbatchCount && share.nonzeroBitCount == 1
    case .interleaved(let groups):
      return (rankCount / groups).nonzeroBitCount == 1
        && (groups == 1 || (microbatchCount / groups).nonzeroBitCount == 1)
    }
  }
}
