// The global gradient norm: every element counted once, the same bits on any number of ranks.
//
// Squares are summed in Float64 over fixed blocks of 4,096 elements; block sums meet in the fixed
// tree over the global block index (contract 4.2). A rank owns whole blocks, so that the partition
// decides only who computes a leaf.

import Basics
import Compression
package import DenseKernels
package import MeshLayout
package import ProcessMesh

/// Elements per leaf of the norm's sum.
package let normBlockLength = 4096

/// Σ x² of each block of 4,096 elements, the last one shorter, in Float64.
package func blockSquares(of values: Buffer<Float>) -> [Double] {
  stride(from: 0, to: values.count, by: normBlockLength).map { start in
    let block = values[start..<min(start + normBlockLength, values.count)]
    return Float.dot(block, block)
  }
}

/// Σ x² over the whole vector of which this rank holds `shard`; equal bits on every rank, for every
/// number of ranks and all units.
///
/// - Collective: over the transport's group; the sharding must agree.
/// - Precondition: stretches of shards begin at multiples of 4,096 elements of the vector.
/// - Throws: what the transport throws, `CompressionError` when a payload is damaged.
/// - Cost: 8 bytes sent to every peer per 4,096 own elements.
package func globalSquaredNorm(
  shard: Buffer<Float>, sharding: UnitSharding, transport: any Transport
) throws -> Double {
  require(
    sharding.shardCount == transport.size && shard.count == sharding.count(of: transport.rank),
    "a shard of \(shard.count) elements of \(sharding.shardCount) on rank \(transport.rank) of "
      + "\(transport.size)")
  let own = Buffer(
    sharding.stretches(of: transport.rank).flatMap { blockSquares(of: shard[$0.local]) })
  let encoder = MessageEncoder()
  let decoder = MessageDecoder()
  let payloads = try transport.allGather(own.withBytes { encoder.encode($0, codec: .off) })
  var leaves = [Double](repeating: 0, count: leafCount(sharding.count))
  for (rank, payload) in payloads.enumerated() {
    let stretches = sharding.stretches(of: rank).filter { !$0.flat.isEmpty }
    let squares = Buffer<Double>(zeroed: stretches.reduce(0) { $0 + leafCount($1.flat.count) })
    try squares.withMutableBytes { bytes throws(CompressionError) in
      _ = try decoder.decode(payload, into: &bytes)
    }
    var next = 0
    for stretch in stretches {
      require(
        stretch.flat.lowerBound.isMultiple(of: normBlockLength),
        "a stretch from \(stretch.flat.lowerBound) on does not begin at a leaf")
      for leaf in 0..<leafCount(stretch.flat.count) {
        leaves[stretch.flat.lowerBound / normBlockLength + leaf] = squares[next]
        next += 1
      }
    }
  }
  return treeReduce(leaves, combine: +) ?? 0
}

private func leafCount(_ elementCount: Int) -> Int {
  (elementCount + normBlockLength - 1) / normBlockLength
}

/// Traps unless `shard` is this rank's part of the partition over the group.
func requireShard(
  _ shard: Buffer<Float>, _ partition: ShardPartition, _ transport: any Transport
) {
  require(
    partition.shardCount == transport.size,
    "a partition over \(partition.shardCount) ranks in a group of \(transport.size)")
  let range = partition.range(of: transport.rank)
  require(
    shard.count == range.count,
    "rank \(transport.rank) owns \(range.count) elements, its shard has \(shard.count)")
}
