import MeshLayout
import Testing

struct UnitShardingTests {
  @Test func `shards cover every element once, unit by unit`() {
    for shardCount in 1...5 {
      for units in [[0..<40], [0..<8, 8..<16, 16..<29], [0..<0, 0..<4, 4..<5]] {
        let sharding = UnitSharding(units: units, shardCount: shardCount, blockLength: 4)
        var owners = [Int](repeating: 0, count: sharding.count)
        for shard in 0..<shardCount {
          let stretches = sharding.stretches(of: shard)
          #expect(stretches.map(\.unit) == Array(units.indices))
          var local = 0
          for stretch in stretches {
            #expect(stretch.local == local..<local + stretch.flat.count)
            #expect(stretch.flat == stretch.flat.clamped(to: units[stretch.unit]))
            local = stretch.local.upperBound
            for element in stretch.flat { owners[element] += 1 }
          }
          #expect(local == sharding.count(of: shard))
        }
        #expect(owners.allSatisfy { $0 == 1 })
      }
    }
  }
}
