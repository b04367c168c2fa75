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
  @Test func `neighborhoods of a power of two are subtrees, others have a tree of their own`() {
    for (size, count) in [(1, 5), (2, 2), (2, 6), (4, 8), (8, 8), (4, 12)] {
      let tree = treeReduce(ofEqual: size, count: count, operand: String.init, combine: join)
      #expect(tree == levelByLevel((0..<count).map(String.init)), "\(count) in \(size)")
    }
    #expect(
      treeReduce(ofEqual: 3, count: 6, operand: String.init, combine: join)
        == "(((0+1)+2)+((3+4)+5))")
  }

  @Test func `as many partial results are held as the digits of an index have ones`() {
    for count in 1...64 {
      var counter = BinaryCounter<Int>()
      var held = 0
      for operand in 0..<count {
        held = max(held, counter.livePartialCount)
        counter.push(operand) { $0 + $1 }
      }
      #expect(heldPartialCount(ofTree: count) == held, "\(count) operands")
    }
  }
}

struct SliceCountTests {
  @Test func `slices are the largest power of two up to eight that divides both`() {
    for (heads, units, count) in [
      (24, 12_288, 8), (8, 8, 8), (16, 36, 4), (6, 384, 2), (3, 64, 1), (8, 0, 8), (5, 0, 1),
    ] {
      #expect(sliceCount(heads: heads, hiddenUnits: units) == count, "\(heads) and \(units)")
    }
  }
}
