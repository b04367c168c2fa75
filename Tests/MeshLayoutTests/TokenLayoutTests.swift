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
}
