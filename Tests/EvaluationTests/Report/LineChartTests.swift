import Testing

@testable import Evaluation

@Suite struct LineChartTests {
  private func points(_ values: [Double]) -> [ReportContent.Point] {
    values.enumerated().map { .init(x: Double($0), y: $1) }
  }

  @Test func `smoothing keeps constants and the first value`() {
    #expect(LineChart.smoothed(points([3, 3, 3, 3])).map(\.y) == [3, 3, 3, 3])
    let noisy = points((0..<300).map { $0 % 2 == 0 ? 1 : -1 })
    let smooth = LineChart.smoothed(noisy).map(\.y)
    #expect(abs(smooth[0] - 1) < 1e-12)
    #expect(smooth.suffix(100).allSatisfy { abs($0) < 0.1 })
  }

  @Test func `many points are joined by their means`() {
    let long = LineChart.bucketed(points((0..<1201).map { Double($0) }))
    #expect(long.count == 401)
    #expect(long[0] == .init(x: 1, y: 1))
    #expect(long[400] == .init(x: 1200, y: 1200))
    #expect(LineChart.bucketed(points([1, 2])).count == 2)
  }

  @Test func `a chart of one point, of equal values and of none has finite coordinates`() {
    for values in [[], [5.0], [2, 2, 2], [0, 0]] {
      let html = LineChart(
        group: .init(title: "t", series: [.init(name: "s", points: points(values))]), identifier: 0
      ).html
      #expect(!html.contains("nan") && !html.contains("–") && !html.contains("∞"), "\(values)")
      #expect(html.contains("<polyline class=\"smooth s0\""))
    }
  }
}
