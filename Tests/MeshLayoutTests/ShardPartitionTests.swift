import MeshLayout
import Testing

struct ShardPartitionTests {
  @Test func `shards cover every element once, in order, aligned and balanced`() {
    for count in 0...40 {
      for shardCount in 1...9 {
        for blockLength in [1, 3, 4, 16] {
          let partition = ShardPartition(
            count: count, shardCount: shardCount, blockLength: blockLength)
          let name = "\(count) over \(shardCount) in blocks of \(blockLength)"
          let slices = partition.slices
          #expect(slices.flatMap(Array.init) == Array(0..<count), "\(name)")
          #expect(slices.count == shardCount)
          for slice in slices {
            #expect(
              slice.lowerBound.isMultiple(of: blockLength) || slice.lowerBound == count, "\(name)")
          }
          let blockCounts = slices.map { ($0.count + blockLength - 1) / blockLength }
          #expect((blockCounts.max() ?? 0) - (blockCounts.min() ?? 0) <= 1, "\(name)")
          #expect(partition.longestShardCount == slices.map(\.count).max())
          for element in 0..<count {
            #expect(slices[partition.owner(of: element)].contains(element), "\(name), \(element)")
          }
        }
      }
    }
  }

  @Test func `parts of a range lie with their owners and make up the range`() {
    for count in [0, 1, 17, 30] {
      for shardCount in 1...5 {
        let partition = ShardPartition(count: count, shardCount: shardCount, blockLength: 4)
        for lower in 0...count {
          for upper in lower...count {
            let parts = partition.parts(of: lower..<upper)
            #expect(parts.flatMap { Array($0.range) } == Array(lower..<upper))
            for part in parts {
              #expect(!part.range.isEmpty)
              #expect(part.range.allSatisfy { partition.owner(of: $0) == part.shard })
            }
          }
        }
      }
    }
  }

  @Test func `the default block is 4096 elements`() {
    let partition = ShardPartition(count: 10_000, shardCount: 2)
    #expect(partition.slices == [0..<4096, 4096..<10_000])
  }
}
