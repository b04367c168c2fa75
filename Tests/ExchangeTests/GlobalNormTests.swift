import DenseKernels
import MeshLayout
import ProcessMesh
import Testing

@testable import Exchange

struct GlobalNormTests {
  @Test func `squares of whole numbers add up exactly`() throws {
    let count = 3 * 4_096 + 5
    let norms = try InProcessMesh.run(size: 2) { transport in
      let partition = ShardPartition(count: count, shardCount: 2)
      let shard = Buffer([Float](repeating: 3, count: partition.range(of: transport.rank).count))
      return try globalSquaredNorm(shard: shard, partition: partition, transport: transport)
    }
    #expect(norms == [Double(9 * count), Double(9 * count)])
  }

  @Test func `a NaN anywhere shows in the norm of every rank`() throws {
    let norms = try InProcessMesh.run(size: 3) { transport in
      let partition = ShardPartition(count: 20_000, shardCount: 3)
      let shard = Buffer<Float>(zeroed: partition.range(of: transport.rank).count)
      if transport.rank == 1 { shard[5] = .nan }
      return try globalSquaredNorm(shard: shard, partition: partition, transport: transport)
    }
    #expect(norms.allSatisfy { $0.isNaN })
  }
}
