import Basics
import MeshLayout
import Testing

struct ArrivalTreeTests {
  private func join(_ left: String, _ right: String) -> String { "(\(left)+\(right))" }

  private func reduced(_ count: Int, _ order: [Int]) -> (result: String?, mostLive: Int) {
    var tree = ArrivalTree<String>(count: count)
    var mostLive = 0
    for (arrived, index) in order.enumerated() {
      #expect(tree.result == nil, "\(arrived) of \(count)")
      tree.insert("\(index)", at: index, combine: join)
      mostLive = max(mostLive, tree.livePartialCount)
    }
    return (tree.result, mostLive)
  }

  @Test func `operands in any order are reduced as in order`() {
    let stream = RandomStream(seed: 3, purpose: .tests, step: 0)
    for count in 1...40 {
      let expected = treeReduce((0..<count).map(String.init), combine: join)
      #expect(reduced(count, Array(0..<count)).result == expected)
      #expect(reduced(count, (0..<count).reversed()).result == expected)
      let keys = stream.normals(count: count)
      let shuffled = (0..<count).sorted { keys[$0] < keys[$1] }
      #expect(reduced(count, shuffled).result == expected, "\(shuffled)")
    }
  }

  /// As blocks of keys come round a ring.
  @Test func `in cyclic order few partials are held`() {
    for count in 1...65 {
      let expected = treeReduce((0..<count).map(String.init), combine: join)
      for first in 0..<count {
        let found = reduced(count, (0..<count).map { (first + count - $0) % count })
        let levels = Int.bitWidth - count.leadingZeroBitCount
        #expect(found.result == expected)
        #expect(found.mostLive <= 2 * levels, "\(count) from \(first): \(found.mostLive)")
      }
    }
  }
}
