// Curves over numbers of ranks as one standalone SVG: panels side by side, ranks on a logarithmic axis.

import Foundation

/// A picture of scaling curves.
package struct ScalingChart: Sendable {
  /// A line with its points.
  package struct Series: Sendable {
    package let name: String
    /// Ranks and value; values that a logarithm cannot show are left out.
    package let points: [(x: Double, y: Double)]
    package let isDashed: Bool

    package init(name: String, points: [(x: Double, y: Double)], isDashed: Bool = false) {
      self.name = name
      self.points = points
      self.isDashed = isDashed
    }
  }

  /// A frame with axes.
  package struct Panel: Sendable {
    package let title: String
    package let label: String
    package let isLogarithmic: Bool
    package let series: [Series]

    package init(title: String, label: String, isLogarithmic: Bool, series: [Series]) {
      self.title = title
      self.label = label
      self.isLogarithmic = isLogarithmic
      self.series = series
    }
  }

  private static let width = 460.0
  private static let height = 340.0
  private static let left = 64.0
  private static let right = 14.0
  private static let top = 34.0
  private static let bottom = 112.0
  private static let colors = ["#1f77b4", "#d95f02", "#2a9d58", "#8856a7", "#b0305c", "#555555"]

  package let title: String
  package let panels: [Panel]

  package init(title: String, panels: [Panel]) {
    self.title = title
    self.panels = panels
  }

  /// The file's text.
  package var svg: String {
    let total = Self.width * Double(panels.count)
    var body =
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(text(total)) "
      + "\(text(Self.height + 30))\" font-family=\"sans-serif\" font-size=\"11\">\n"
    body += "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    body += "<text x=\"12\" y=\"19\" font-size=\"14\">\(ReportText.escaped(title))</text>\n"
    for (index, panel) in panels.enumerated() {
      body +=
        "<g transform=\"translate(\(text(Double(index) * Self.width)) 26)\">\n\(draw(panel))</g>\n"
    }
    return body + "</svg>\n"
  }

  private func draw(_ panel: Panel) -> String {
    let points = panel.series.flatMap(\.points)
      .filter { $0.x > 0 && $0.y.isFinite && (!panel.isLogarithmic || $0.y > 0) }
    let x = Axis(points.map(\.x), isLogarithmic: true, from: Self.left, to: Self.width - Self.right)
    let y = Axis(
      panel.isLogarithmic ? points.map(\.y) : points.map(\.y) + [0],
      isLogarithmic: panel.isLogarithmic, from: Self.height - Self.bottom, to: Self.top)
    var body =
      "<text x=\"\(text(Self.left))\" y=\"20\" font-size=\"12\">\(ReportText.escaped(panel.title))"
      + "</text>\n"
    for tick in y.ticks {
      body += line(Self.left, y.pixel(tick), Self.width - Self.right, y.pixel(tick), "#dddddd")
      body += label(ReportText.compact(tick), Self.left - 6, y.pixel(tick) + 4, anchor: "end")
    }
    let ranks = Set(points.map(\.x)).sorted()
    for tick in ranks {
      body += label(
        String(format: "%.0f", tick), x.pixel(tick), Self.height - Self.bottom + 16,
        anchor: "middle")
    }
    body += line(
      Self.left, Self.height - Self.bottom, Self.width - Self.right, Self.height - Self.bottom,
      "#333333")
    body += label(
      "ranks; \(panel.label)", Self.left, Self.height - Self.bottom + 32, anchor: "start")
    for (index, series) in panel.series.enumerated() {
      body += draw(series, index, x, y, isLogarithmic: panel.isLogarithmic)
    }
    return body
  }

  private func draw(
    _ series: Series, _ index: Int, _ x: Axis, _ y: Axis, isLogarithmic: Bool
  ) -> String {
    let color = Self.colors[index % Self.colors.count]
    let shown = series.points.filter {
      $0.x > 0 && $0.y.isFinite && (!isLogarithmic || $0.y > 0)
    }
    let places = shown.map { "\(text(x.pixel($0.x))),\(text(y.pixel($0.y)))" }
    let dash = series.isDashed ? " stroke-dasharray=\"5 4\"" : ""
    var body =
      "<polyline fill=\"none\" stroke=\"\(color)\" stroke-width=\"1.6\"\(dash) points=\""
      + "\(places.joined(separator: " "))\"/>\n"
    if !series.isDashed {
      for point in shown {
        body +=
          "<circle cx=\"\(text(x.pixel(point.x)))\" cy=\"\(text(y.pixel(point.y)))\" r=\"2.6\" "
          + "fill=\"\(color)\"/>\n"
      }
    }
    let row = Self.height - Self.bottom + 48 + 14 * Double(index)
    body += line(Self.left, row - 4, Self.left + 18, row - 4, color)
    return body + label(series.name, Self.left + 24, row, anchor: "start")
  }

  private func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ color: String)
    -> String
  {
    "<line x1=\"\(text(x1))\" y1=\"\(text(y1))\" x2=\"\(text(x2))\" y2=\"\(text(y2))\" "
      + "stroke=\"\(color)\"/>\n"
  }

  private func label(_ words: String, _ x: Double, _ y: Double, anchor: String) -> String {
    "<text x=\"\(text(x))\" y=\"\(text(y))\" text-anchor=\"\(anchor)\">"
      + "\(ReportText.escaped(words))</text>\n"
  }

  private func text(_ value: Double) -> String { ReportText.fixed(value, digits: 1) }

  /// Values to pixels.
  private struct Axis {
    let isLogarithmic: Bool
    let bounds: ClosedRange<Double>
    let start: Double
    let end: Double

    init(_ values: [Double], isLogarithmic: Bool, from start: Double, to end: Double) {
      self.isLogarithmic = isLogarithmic
      (self.start, self.end) = (start, end)
      let scaled = values.map { Self.scaled($0, isLogarithmic: isLogarithmic) }
      let low = scaled.min() ?? 0
      let high = scaled.max() ?? 1
      bounds = low...(high > low ? high : low + 1)
    }

    private static func scaled(_ value: Double, isLogarithmic: Bool) -> Double {
      isLogarithmic ? Foundation.log2(value) : value
    }

    func pixel(_ value: Double) -> Double {
      let scaled = Self.scaled(value, isLogarithmic: isLogarithmic)
      return start + (scaled - bounds.lowerBound) / (bounds.upperBound - bounds.lowerBound)
        * (end - start)
    }

    /// Powers of ten, or of two where they are few; else five steps.
    var ticks: [Double] {
      guard isLogarithmic else {
        let span = bounds.upperBound - bounds.lowerBound
        return (0...5).map { bounds.lowerBound + span * Double($0) / 5 }
      }
      let base = bounds.upperBound - bounds.lowerBound > 10 ? Foundation.log2(10.0) : 1.0
      let first = (bounds.lowerBound / base).rounded(.up)
      let last = (bounds.upperBound / base).rounded(.down)
      return first <= last
        ? stride(from: first, through: last, by: 1).map { Foundation.pow(2.0, $0 * base) } : []
    }
  }
}
