// Which rank owns which elements of a flat vector that is cut into units: each unit is shared among all
// ranks, or those of the pipeline stage that runs it, so that a unit can be gathered, or its gradient
// summed, by itself. One unit is the whole vector cut into contiguous ranges.

import Basics

/// The shards of a vector of units.
package struct UnitSharding: Equatable, Sendable {
  /// Contiguous, in order, covering the vector; each but the last a multiple of `blockLength`.
  package let units: [Range<Int>]
  package let shardCount: Int
  package let partitions: [ShardPartition]

  /// What a shard holds of a unit.
  package struct Stretch: Equatable, Sendable {
    package let unit: Int
    /// Where it lies in the vector.
    package let flat: Range<Int>
    /// Where it lies in the memory of the shard.
    package let local: Range<Int>
  }

  /// - Parameter owners: by unit, the ranks that share it; nil: all share each.
  /// - Precondition: units begin at multiples of `blockLength`, each where the one before it ends.
  package init(
    units: [Range<Int>], shardCount: Int, blockLength: Int = 4096, owners: [Range<Int>]? = nil
  ) {
    var end = 0
    for unit in units {
      require(
        unit.lowerBound == end && end.isMultiple(of: blockLength),
        "unit \(unit) after \(end), in blocks of \(blockLength)")
      end = unit.upperBound
    }
    self.units = units
    self.shardCount = shardCount
    partitions = units.enumerated().map { index, unit in
      ShardPartition(
        count: unit.count, shardCount: shardCount, blockLength: blockLength,
        owners: owners?[index])
    }
  }

  /// Elements of the vector.
  package var count: Int { units.last?.upperBound ?? 0 }

  /// What a shard holds, unit by unit; a stretch may be empty.
  package func stretches(of shard: Int) -> [Stretch] {
    var start = 0
    return units.indices.map { unit in
      let own = partitions[unit].range(of: shard)
      let origin = units[unit].lowerBound
      defer { start += own.count }
      return Stretch(
        unit: unit, flat: origin + own.lowerBound..<origin + own.upperBound,
        local: start..<start + own.count)
    }
  }

  /// Elements of a shard.
  package func count(of shard: Int) -> Int {
    partitions.reduce(0) { $0 + $1.range(of: shard).count }
  }
}
