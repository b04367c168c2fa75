import MeshLayout
import Testing

@testable import Exchange

struct BucketPlanTests {
  @Test func `the pieces of all buckets cover every shard once and in order`() {
    for count in [0, 1, 4_096, 4_097, 70_000] {
      for shardCount in 1...9 {
        for byteCount in [64 << 10, 100_000, 4 << 20] {
          let partition = ShardPartition(count: count, shardCount: shardCount)
          let plan = BucketPlan(partition, byteCount: byteCount)
          for shard in 0..<shardCount {
            let range = partition.range(of: shard)
            var next = range.lowerBound
            for bucket in 0..<plan.bucketCount {
              let piece = plan.piece(bucket, of: shard)
              #expect(piece.lowerBound == next && piece.count <= plan.pieceWordCount)
              let local = plan.localPiece(bucket, of: shard)
              #expect(local.lowerBound == next - range.lowerBound && local.count == piece.count)
              next = piece.upperBound
            }
            #expect(next == range.upperBound, "\(count), \(shardCount), \(byteCount), \(shard)")
          }
        }
      }
    }
  }
}
