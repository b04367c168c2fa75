// Which microbatches a rank computes, such that the tree of the gradient sum falls into what a rank sums
// by itself and what is summed over ranks.

import Basics

/// `microbatchCount` microbatches over `rankCount` ranks.
package struct MicrobatchShare: Equatable, Sendable {
  package enum Order: Equatable, Sendable {
    /// Contiguous ranges that differ by at most one: a rank's sum is a part of the tree (an aligned
    /// subtree when both counts are powers of two), and is sent once.
    case contiguous
    /// Round by round: rank r has microbatches r, r + ranks, …; each round is summed over ranks.
    case interleaved
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
    case .contiguous: Array(evenRange(of: microbatchCount, part: rank, partCount: rankCount))
    case .interleaved: Array(stride(from: rank, to: microbatchCount, by: rankCount))
    }
  }

  /// The rank that computes `microbatch`.
  package func owner(of microbatch: Int) -> Int {
    require(
      microbatch >= 0 && microbatch < microbatchCount,
      "microbatch \(microbatch) of \(microbatchCount)")
    return switch order {
    case .contiguous: ((microbatch + 1) * rankCount - 1) / microbatchCount
    case .interleaved: microbatch % rankCount
    }
  }

  /// Whether the sum is promised to have the same bits as on one rank: true with one rank, and
  /// when what a rank (or a round) sums are subtrees: equal shares (or rounds) of a power of two.
  /// False: the bits may differ (some uneven shares happen to fit the tree too).
  package var preservesBits: Bool {
    if rankCount == 1 { return true }
    let share = microbatchCount / rankCount
    return share * rankCount == microbatchCount
      && (order == .contiguous ? share : rankCount).nonzeroBitCount == 1
  }
}
