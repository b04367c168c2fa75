// Cuts the exchange of a partitioned vector into buckets: bucket i holds the i-th piece of every
// shard, so that all owners work in every bucket.

import MeshLayout

/// The buckets of one vector; a pure function of the partition and the bucket size.
struct BucketPlan {
  let partition: ShardPartition
  /// Words of each shard per bucket.
  let pieceWordCount: Int
  let bucketCount: Int

  /// - Parameter byteCount: of Float32 words per bucket, over all shards.
  init(_ partition: ShardPartition, byteCount: Int) {
    self.partition = partition
    let even = byteCount / MemoryLayout<Float>.size / partition.shardCount
    let longest = partition.longestShardCount
    // At least a block, so that tiny buckets do not turn into tiny messages.
    pieceWordCount = max(min(even, longest), min(partition.blockLength, longest))
    bucketCount = longest == 0 ? 0 : (longest + pieceWordCount - 1) / pieceWordCount
  }

  /// The elements of the whole vector that `bucket` holds of `shard`.
  func piece(_ bucket: Int, of shard: Int) -> Range<Int> {
    let range = partition.range(of: shard)
    let start = min(range.lowerBound + bucket * pieceWordCount, range.upperBound)
    return start..<min(start + pieceWordCount, range.upperBound)
  }

  /// The same elements, counted from the start of `shard`.
  func localPiece(_ bucket: Int, of shard: Int) -> Range<Int> {
    let start = partition.range(of: shard).lowerBound
    let piece = piece(bucket, of: shard)
    return piece.lowerBound - start..<piece.upperBound - start
  }
}
