// Which microbatches a rank computes: contiguous ranges, so that a rank's part of the gradient sum
// is a contiguous part of the tree (an aligned subtree when both counts are powers of two).

import Basics

/// `microbatchCount` microbatches over `rankCount` ranks; shares differ by at most one.
package struct MicrobatchShare: Equatable, Sendable {
  package let microbatchCount: Int
  package let rankCount: Int

  /// - Throws: `moreRanksThanMicrobatches`: a rank without work would have no partial sum.
  package init(microbatchCount: Int, rankCount: Int) throws(MeshLayoutError) {
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
    self.microbatchCount = microbatchCount
    self.rankCount = rankCount
  }

  /// The microbatches of `rank`.
  package func range(of rank: Int) -> Range<Int> {
    evenRange(of: microbatchCount, part: rank, partCount: rankCount)
  }

  /// The rank that computes `microbatch`.
  package func owner(of microbatch: Int) -> Int {
    require(
      microbatch >= 0 && microbatch < microbatchCount,
      "microbatch \(microbatch) of \(microbatchCount)")
    return ((microbatch + 1) * rankCount - 1) / microbatchCount
  }

  /// Whether the sum is promised to have the same bits as on one rank: true with one rank, and
  /// when all shares are the same power of two, hence subtrees. False: the bits may differ (some
  /// uneven shares happen to fit the tree too).
  package var preservesBits: Bool {
    if rankCount == 1 { return true }
    let share = microbatchCount / rankCount
    return share * rankCount == microbatchCount && share.nonzeroBitCount == 1
  }
}
