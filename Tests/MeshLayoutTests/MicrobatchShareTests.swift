import MeshLayout
import Testing

struct MicrobatchShareTests {
  @Test func `shares are contiguous, cover all microbatches and differ by at most one`() throws {
    for microbatchCount in 1...20 {
      for rankCount in 1...microbatchCount {
        let share = try MicrobatchShare(microbatchCount: microbatchCount, rankCount: rankCount)
        let ranges = (0..<rankCount).map(share.microbatches)
        #expect(ranges.flatMap(\.self) == Array(0..<microbatchCount))
        let sizes = ranges.map(\.count)
        #expect((sizes.min() ?? 0) >= 1)
        #expect((sizes.max() ?? 0) - (sizes.min() ?? 0) <= 1)
        for microbatch in 0..<microbatchCount {
          #expect(ranges[share.owner(of: microbatch)].contains(microbatch))
        }
      }
    }
  }

  @Test func `where bits are promised, joining the shares gives the one-rank tree`() throws {
    func join(_ left: String, _ right: String) -> String { "(\(left)+\(right))" }
    for microbatchCount in 1...32 {
      for rankCount in 1...microbatchCount {
        let share = try MicrobatchShare(microbatchCount: microbatchCount, rankCount: rankCount)
        let partials = (0..<rankCount).map { rank in
          treeReduce(share.microbatches(of: rank).map(String.init), combine: join) ?? ""
        }
        let whole = treeReduce((0..<microbatchCount).map(String.init), combine: join)
        let isSame = treeReduce(partials, combine: join) == whole
        if share.preservesBits { #expect(isSame, "\(microbatchCount) over \(rankCount)") }
      }
    }
  }

  @Test func `rounds deal all microbatches out, and joining rounds gives the one-rank tree`() throws
  {
    func join(_ left: String, _ right: String) -> String { "(\(left)+\(right))" }
    for rankCount in 1...8 {
      for roundCount in 1...9 {
        let count = rankCount * roundCount
        let share = try MicrobatchShare(
          microbatchCount: count, rankCount: rankCount, order: .interleaved(groups: 1))
        let own = (0..<rankCount).map(share.microbatches)
        #expect(own.allSatisfy { $0.count == roundCount && $0 == $0.sorted() })
        #expect(own.flatMap(\.self).sorted() == Array(0..<count))
        for (rank, microbatches) in own.enumerated() {
          #expect(microbatches.allSatisfy { share.owner(of: $0) == rank })
        }
        let rounds = (0..<roundCount).map { round in
          treeReduce(own.map { String($0[round]) }, combine: join) ?? ""
        }
        let whole = treeReduce((0..<count).map(String.init), combine: join)
        let isSame = treeReduce(rounds, combine: join) == whole
        #expect(share.preservesBits == [1, 2, 4, 8].contains(rankCount))
        if share.preservesBits { #expect(isSame, "\(roundCount) rounds of \(rankCount)") }
      }
    }
  }

  @Test func `groups have contiguous parts, and joining rounds and groups gives the one-rank tree`()
    throws
  {
    func join(_ left: String, _ right: String) -> String { "(\(left)+\(right))" }
    for groups in 1...4 {
      for size in 1...4 {
        for roundCount in 1...4 {
          let count = groups * size * roundCount
          let share = try MicrobatchShare(
            microbatchCount: count, rankCount: groups * size, order: .interleaved(groups: groups))
          var parts: [String] = []
          for group in 0..<groups {
            let own = (0..<size).map { share.microbatches(of: group * size + $0) }
            #expect(
              own.flatMap(\.self).sorted()
                == Array(group * size * roundCount..<(group + 1) * size * roundCount))
            let rounds = (0..<roundCount).map { round in own.map { $0[round] } }
            for (rank, microbatches) in own.enumerated() {
              #expect(microbatches.allSatisfy { share.owner(of: $0) == group * size + rank })
            }
            for round in rounds { #expect(round.allSatisfy { share.round(of: $0) == round }) }
            parts.append(
              treeReduce(
                rounds.map { treeReduce($0.map(String.init), combine: join) ?? "" }, combine: join)
                ?? "")
          }
          let whole = treeReduce((0..<count).map(String.init), combine: join)
          if share.preservesBits {
            #expect(treeReduce(parts, combine: join) == whole, "\(groups) × \(size), \(roundCount)")
          }
          if [1, 2, 4].contains(size), [1, 2, 4].contains(roundCount) {
            #expect(share.preservesBits)
          }
        }
      }
    }
  }

  @Test func `rounds that are not full are an error that says what to do`() {
    let error = #expect(throws: MeshLayoutError.self) {
      try MicrobatchShare(microbatchCount: 8, rankCount: 3, order: .interleaved(groups: 1))
    }
    #expect(error?.code == .doesNotDivide)
    #expect(error?.message.contains("or ZeRO stage 1") == true)
  }

  @Test func `bits are promised for power-of-two counts and not for shares that break the tree`()
    throws
  {
    func promises(_ microbatchCount: Int, _ rankCount: Int) throws -> Bool {
      try MicrobatchShare(microbatchCount: microbatchCount, rankCount: rankCount).preservesBits
    }
    for microbatchCount in [1, 2, 4, 8, 16] {
      for rankCount in [1, 2, 4, 8, 16] where rankCount <= microbatchCount {
        #expect(try promises(microbatchCount, rankCount))
      }
    }
    #expect(try promises(7, 1) && promises(12, 3))
    // ((0+1)+2)+((3+4)+5) is not ((0+1)+(2+3))+(4+5), nor 0+(1+2) the tree of three.
    #expect(try !promises(6, 2) && !promises(3, 2))
  }

  @Test func `more ranks than microbatches is an error that says what to do`() {
    let error = #expect(throws: MeshLayoutError.self) {
      try MicrobatchShare(microbatchCount: 4, rankCount: 5)
    }
    #expect(error?.code == .moreRanksThanMicrobatches)
    #expect(error?.message.contains("at most 4 ranks") == true)
  }
}
