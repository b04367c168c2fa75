import MeshLayout
import Testing

struct BinomialTreeTests {
  @Test func `every rank but the root has the parent whose child it is`() {
    for size in 1...17 {
      for root in 0..<size {
        let trees = (0..<size).map { BinomialTree(rank: $0, root: root, size: size) }
        for (rank, tree) in trees.enumerated() {
          #expect((tree.parent == nil) == (rank == root))
          for child in tree.children { #expect(trees[child].parent == rank) }
        }
        #expect(trees.flatMap(\.children).sorted() == (0..<size).filter { $0 != root })
      }
    }
  }

  @Test func `a rank is at most log2(size) hops from the root`() {
    for size in 1...17 {
      for rank in 0..<size {
        var (place, hops) = (rank, 0)
        while let parent = BinomialTree(rank: place, root: 0, size: size).parent {
          (place, hops) = (parent, hops + 1)
        }
        #expect(hops <= Int.bitWidth - (size - 1).leadingZeroBitCount, "\(rank) of \(size)")
      }
    }
  }
}
