import MeshLayout
import Testing

struct TokenLayoutTests {
  @Test func `parts are disjoint, in order, complete and even`() {
    for segments in [[10, 3], [7], [1, 1], [0, 5], [333, 77]] {
      for partCount in 1...9 {
        let layout = TokenLayout(
          sampleCount: 1, segments: segments, width: partCount, partCount: partCount)
        let parts = (0..<partCount).map(layout.ranges(of:))
        for segment in segments.indices {
          let start = segments[..<segment].reduce(0, +)
          #expect(
            parts.flatMap { Array($0[segment]) } == Array(start..<start + segments[segment]))
          let counts = parts.map { $0[segment].count }
          #expect((counts.max() ?? 0) - (counts.min() ?? 0) <= 1)
        }
        #expect((0..<partCount).map(layout.tokenCount(of:)).reduce(0, +) == layout.tokenCount)
      }
    }
  }
  /// 3 tokens over 4 × 2 parts: cut in turn, the second piece's one token would be the second part's.
  @Test func `parts of pieces are those of the whole`() {
    for stretches in [[3], [10, 3], [45, 7], [1_000, 2], [0, 5]] {
      for (pieceCount, partCount) in [(1, 4), (2, 1), (2, 2), (4, 2), (2, 4), (3, 2)] {
        let whole = TokenLayout(
          sampleCount: 1, segments: stretches, width: 1, partCount: pieceCount * partCount)
        let pieces = TokenLayout(
          sampleCount: 1, segments: stretches, width: 1, partCount: pieceCount)
        for piece in 0..<pieceCount {
          let layout = TokenLayout(
            sampleCount: 1, stretches: stretches, piece: piece, pieceCount: pieceCount, width: 1,
            partCount: partCount)
          let places = pieces.ranges(of: piece).flatMap(\.self)
          #expect(layout.tokenCount == places.count)
          for part in 0..<partCount {
            #expect(
              layout.ranges(of: part).flatMap { $0.map { places[$0] } }
                == whole.ranges(of: piece * partCount + part).flatMap(\.self),
              "\(stretches), \(piece) of \(pieceCount), \(part) of \(partCount)")
          }
        }
      }
    }
  }
}
