// Which rank owns which range of a flat vector (parameters, gradients, moments, EMA).

import Basics

/// `count` elements over `shardCount` shards: contiguous, in rank order, every element exactly
/// once; starts are multiples of `blockLength`; shards differ by at most one block; with fewer
/// blocks than shards some are empty. Shards that are no owners are empty as well.
package struct ShardPartition: Equatable, Sendable {
  package let count: Int
  package let shardCount: Int
  package let blockLength: Int
  /// The shards that have elements: all, or those of one pipeline stage.
  package let owners: Range<Int>

  /// - Parameter owners: nil: all shards.
  package init(
    count: Int, shardCount: Int, blockLength: Int = 4096, owners: Range<Int>? = nil
  ) {
    let owners = owners ?? 0..<shardCount
    require(
      count >= 0 && shardCount > 0 && blockLength > 0,
      "\(count) elements, \(shardCount) shards, blocks of \(blockLength)")
    require(
      !owners.isEmpty && owners.lowerBound >= 0 && owners.upperBound <= shardCount,
      "owners \(owners) of \(shardCount) shards")
    self.count = count
    self.shardCount = shardCount
    self.blockLength = blockLength
    self.owners = owners
  }

  /// The same elements over the owners alone: shard i of it is that of the i-th owner.
  package var amongOwners: ShardPartition {
    ShardPartition(count: count, shardCount: owners.count, blockLength: blockLength)
  }

  private var blockCount: Int { (count + blockLength - 1) / blockLength }

  /// The elements of `shard`.
  package func range(of shard: Int) -> Range<Int> {
    require(shard >= 0 && shard < shardCount, "shard \(shard) of \(shardCount)")
    let place = min(max(shard - owners.lowerBound, 0), owners.count)
    let first = place * blockCount / owners.count
    let end = owners.contains(shard) ? (place + 1) * blockCount / owners.count : first
    return min(first * blockLength, count)..<min(end * blockLength, count)
  }

  /// The shard that holds `element`.
  package func owner(of element: Int) -> Int {
    require(element >= 0 && element < count, "element \(element) of \(count)")
    return owners.lowerBound + ((element / blockLength + 1) * owners.count - 1) / blockCount
  }

  /// The ranges of all shards, in order.
  package var slices: [Range<Int>] { (0..<shardCount).map(range(of:)) }

  /// The length of the longest shard: what a buffer for any shard must hold.
  package var longestShardCount: Int { slices.map(\.count).max() ?? 0 }

  /// The parts of `range` by owner, in order, empty ones left out.
  package func parts(of range: Range<Int>) -> [(shard: Int, range: Range<Int>)] {
    require(
      range.lowerBound >= 0 && range.upperBound <= count, "range \(range) of \(count) elements")
    if range.isEmpty { return [] }
    return (owner(of: range.lowerBound)...owner(of: range.upperBound - 1)).compactMap { shard in
      let part = self.range(of: shard).clamped(to: range)
      return part.isEmpty ? nil : (shard, part)
    }
  }
}
