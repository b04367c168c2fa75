import DenseKernels
import MeshLayout
import ProcessMesh
import Testing

@testable import Exchange

struct GlobalNormTests {
  @Test func `squares of whole numbers add up exactly`() throws {
    let count = 3 * 4_096 + 5
    let norms = try InProcessMesh.run(size: 2) { transport in
      let sharding = UnitSharding(units: [0..<4_096, 4_096..<count], shardCount: 2)
      let shard = Buffer([Float](repeating: 3, count: sharding.count(of: transport.rank)))
      return try globalSquaredNorm(shard: shard, sharding: sharding, transport: transport)
    }
    #expect(norms == [Double(9 * count), Double(9 * count)])
  }

  @Test func `a NaN anywhere shows in the norm of every rank`() throws {
    let norms = try InProcessMesh.run(size: 3) { transport in
      let sharding = UnitSharding(units: [0..<20_000], shardCount: 3)
      let shard = Buffer<Float>(zeroed: sharding.count(of: transport.rank))
      if transport.rank == 1 { shard[5] = .nan }
      return try globalSquaredNorm(shard: shard, sharding: sharding, transport: transport)
    }
    #expect(norms.allSatisfy { $0.isNaN })
  }
}
