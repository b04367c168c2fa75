import MeshLayout
import Testing

struct MicrobatchShareTests {
  @Test func `shares are contiguous, cover all microbatches and differ by at most one`() throws {
    for microbatchCount in 1...20 {
      for rankCount in 1...microbatchCount {
        let share = try MicrobatchShare(microbatchCount: microbatchCount, rankCount: rankCount)
        let ranges = (0..<rankCount).map(share.range)
        #expect(ranges.flatMap(Array.init) == Array(0..<microbatchCount))
        let sizes = ranges.map(\.count)
        #expect((sizes.min() ?? 0) >= 1)
        #expect((sizes.max() ?? 0) - (sizes.min() ?? 0) <= 1)
        for microbatch in 0..<microbatchCount {
          #expect(ranges[share.owner(of: microbatch)].contains(microbatch))
        }
      }
    }
  }

  @Test func `bits are preserved exactly when joining the shares gives the one-rank tree`() throws {
    func join(_ left: String, _ right: String) -> String { "(\(left)+\(right))" }
    for microbatchCount in 1...32 {
      for rankCount in 1...microbatchCount {
        let share = try MicrobatchShare(microbatchCount: microbatchCount, rankCount: rankCount)
        let partials = (0..<rankCount).map { rank in
          treeReduce(share.range(of: rank).map(String.init), combine: join) ?? ""
        }
        let whole = treeReduce((0..<microbatchCount).map(String.init), combine: join)
        #expect(
          share.preservesBits == (treeReduce(partials, combine: join) == whole),
          "\(microbatchCount) over \(rankCount)")
      }
    }
  }

  @Test func `more ranks than microbatches is an error that says what to do`() {
    let error = #expect(throws: MeshLayoutError.self) {
      try MicrobatchShare(microbatchCount: 4, rankCount: 5)
    }
    #expect(error?.code == .moreRanksThanMicrobatches)
    #expect(error?.message.contains("at most 4 ranks") == true)
  }
}
