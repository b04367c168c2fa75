import Testing

@testable import MeshLayout

struct StageCutTests {
  @Test func `every block has one stage, and stages are as even as they can be`() {
    for blockCount in 1...9 {
      for stageCount in 1...blockCount {
        let cut = StageCut(blockCount: blockCount, stageCount: stageCount)
        let stages = (0..<stageCount).map(cut.blocks(of:))
        #expect(stages.flatMap(Array.init) == Array(0..<blockCount), "\(cut)")
        let sizes = stages.map(\.count)
        #expect((sizes.max() ?? 0) - (sizes.min() ?? 0) <= 1, "\(cut)")
        for (stage, blocks) in stages.enumerated() {
          #expect(blocks.allSatisfy { cut.stage(ofBlock: $0) == stage }, "\(cut)")
        }
      }
    }
  }

  @Test func `what is before blocks is the first stage's, what is behind them the last one's`() {
    let units = [
      (isBlock: false, isOutput: false), (true, false), (true, false), (true, false),
      (false, true), (false, false),
    ]
    #expect(StageCut.stages(of: units, stageCount: 3) == [0, 0, 1, 2, 2, 0])
    #expect(StageCut.stages(of: units, stageCount: 2) == [0, 0, 1, 1, 1, 0])
    #expect(StageCut.stages(of: units, stageCount: 1) == [0, 0, 0, 0, 0, 0])
  }

  @Test func `owners have all elements, in order, and the others none`() {
    for count in [0, 1, 7, 8, 9, 40, 41] {
      for shardCount in 1...4 {
        for first in 0..<shardCount {
          for end in first + 1...shardCount {
            let partition = ShardPartition(
              count: count, shardCount: shardCount, blockLength: 8, owners: first..<end)
            let slices = partition.slices
            let name = "\(count) of \(first)..<\(end) of \(shardCount)"
            #expect(slices.reduce(0) { $0 + $1.count } == count, "\(name)")
            #expect(zip(slices, slices.dropFirst()).allSatisfy { $0.upperBound == $1.lowerBound })
            for (shard, slice) in slices.enumerated() {
              if !(first..<end).contains(shard) { #expect(slice.isEmpty, "\(name)") }
              #expect(slice.allSatisfy { partition.owner(of: $0) == shard }, "\(name)")
            }
            #expect(Array(slices[first..<end]) == partition.amongOwners.slices, "\(name)")
          }
        }
      }
    }
  }
}
