import MeshLayout
import Testing

struct TreeOrderTests {
  /// The definition, level by level: the slow twin of `BinaryCounter`.
  private func levelByLevel(_ operands: [String]) -> String? {
    var level = operands
    while level.count > 1 {
      level = stride(from: 0, to: level.count, by: 2).map { index in
        index + 1 < level.count ? "(\(level[index])+\(level[index + 1]))" : level[index]
      }
    }
    return level.first
  }

  private func join(_ left: String, _ right: String) -> String { "(\(left)+\(right))" }

  @Test func `small trees are written as the contract writes them`() {
    let expected = [
      nil, "0", "(0+1)", "((0+1)+2)", "((0+1)+(2+3))", "(((0+1)+(2+3))+4)",
      "(((0+1)+(2+3))+(4+5))", "(((0+1)+(2+3))+((4+5)+6))",
    ]
    for (count, tree) in expected.enumerated() {
      #expect(treeReduce((0..<count).map(String.init), combine: join) == tree)
    }
  }

  @Test func `the binary counter does the same additions as the tree, for every count`() {
    for count in 0...300 {
      let operands = (0..<count).map(String.init)
      var counter = BinaryCounter<String>()
      for operand in operands { counter.push(operand, combine: join) }
      #expect(counter.count == count)
      #expect(counter.finish(combine: join) == levelByLevel(operands), "\(count) operands")
      #expect(counter.isEmpty && counter.livePartialCount == 0)
    }
  }

  @Test func `a counter of n operands holds at most log2(n) + 1 partials`() {
    var counter = BinaryCounter<Int>()
    for count in 1...1_025 {
      counter.push(1, combine: +)
      #expect(counter.livePartialCount == count.nonzeroBitCount)
      #expect(counter.livePartialCount <= Int.bitWidth - count.leadingZeroBitCount)
    }
    #expect(counter.finish(combine: +) == 1_025)
  }

  @Test func `operands are asked for once each, in rising order`() {
    var asked: [Int] = []
    _ = treeReduce(
      count: 13,
      operand: { index in
        asked.append(index)
        return index
      }, combine: +)
    #expect(asked == Array(0..<13))
  }

  @Test func `subtrees of equal power-of-two shares join to the whole tree`() {
    for leafCount in [1, 2, 4, 8, 16] {
      for rankCount in [1, 2, 3, 4, 5, 8] {
        let operands = (0..<leafCount * rankCount).map(String.init)
        let partials = (0..<rankCount).map { rank in
          levelByLevel(Array(operands[rank * leafCount..<(rank + 1) * leafCount])) ?? ""
        }
        #expect(
          treeReduce(partials, combine: join) == levelByLevel(operands),
          "\(rankCount) ranks of \(leafCount)")
      }
    }
  }

  @Test func `an error of the combination comes through`() {
    struct Stop: Error {}
    #expect(throws: Stop.self) {
      _ = try treeReduce(
        count: 3, operand: { $0 }, combine: { (_: Int, _: Int) throws -> Int in throw Stop() })
    }
  }
}
