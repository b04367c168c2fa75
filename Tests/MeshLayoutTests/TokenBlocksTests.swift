import Testing

@testable import MeshLayout

struct TokenBlocksTests {
  static let segments = [[45, 7], [3], [16, 0], [1_000, 2], [0, 0]]

  @Test(arguments: segments, TokenBlocks.partCounts)
  func
    `parts have the own tokens of the layout, in blocks that are the same for any number of parts`(
      segments: [Int], partCount: Int
    )
  {
    /// Tokens of every block, as they are counted over all parts.
    func tokens(partCount: Int) -> [[Int]] {
      let layout = TokenLayout(
        sampleCount: 1, segments: segments, width: 1, partCount: partCount)
      return (0..<partCount).flatMap { part in
        let own = TokenBlocks(segments: segments, part: part, partCount: partCount)
        let places = layout.ranges(of: part).flatMap(\.self)
        #expect(own.tokenCount == places.count)
        // One range of each segment, so that a block's tokens are in order.
        #expect(own.blocks.allSatisfy { $0.count == segments.count })
        return own.blocks.map { ranges in ranges.flatMap(\.self).map { places[$0] } }
      }
    }
    let found = tokens(partCount: partCount)
    #expect(found.count == TokenBlocks.count)
    #expect(found == tokens(partCount: 1))
    #expect(found.flatMap(\.self).sorted() == Array(0..<segments.reduce(0, +)))
  }

  @Test func `the number of blocks is that of canonical runs made so far`() {
    #expect(TokenBlocks.count == 8 && TokenBlocks.partCounts == [1, 2, 4, 8])
  }

  @Test func `partial sums held are those of the tree, blocks without a token have none`() {
    func held(_ tokens: Int, _ part: Int = 0, of partCount: Int = 1) -> Int {
      TokenBlocks(segments: [tokens], part: part, partCount: partCount).heldPartialCount
    }
    #expect([0, 1, 2, 4, 8, 100].map { held($0) } == [0, 0, 1, 2, 3, 3])
    #expect(held(100, 1, of: 2) == 2 && held(100, 3, of: 4) == 1 && held(100, 7, of: 8) == 0)
  }
}
