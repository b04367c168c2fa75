// A line chart as inline SVG: each series faint as measured and strong as smoothed.
//
// The vertical range covers the middle 98 % of the values and every smoothed one, so that one spike
// does not flatten the rest; what lies outside is cut at the frame.

import Foundation

struct LineChart {
  static let width = 640.0
  static let height = 260.0
  static let left = 58.0
  static let right = 12.0
  static let top = 10.0
  static let bottom = 34.0
  /// More raw points than this are joined into buckets by their mean.
  static let largestPointCount = 600

  let group: ReportContent.CurveGroup
  /// Distinguishes clip paths when a page has several charts.
  let identifier: Int

  /// The whole `<figure>`.
  var html: String {
    let axes = Axes(group.series)
    var body = ""
    for tick in axes.verticalTicks {
      let y = axes.pixelY(tick)
      body +=
        "<line class=\"grid\" x1=\"\(number(Self.left))\" x2=\"\(number(Self.width - Self.right))\""
      body += " y1=\"\(number(y))\" y2=\"\(number(y))\"/>"
      body += "<text x=\"\(number(Self.left - 6))\" y=\"\(number(y + 4))\" text-anchor=\"end\">"
      body += "\(ReportText.compact(tick))</text>\n"
    }
    for tick in axes.horizontalTicks {
      body += "<text x=\"\(number(axes.pixelX(tick)))\" y=\"\(number(Self.height - 16))\""
      body += " text-anchor=\"middle\">\(ReportText.compact(tick))</text>\n"
    }
    body += "<text x=\"\(number((Self.left + Self.width - Self.right) / 2))\""
    body += " y=\"\(number(Self.height - 2))\" text-anchor=\"middle\">"
    body += "\(ReportText.escaped(group.horizontalLabel))</text>\n"
    body +=
      "<clipPath id=\"frame\(identifier)\"><rect x=\"\(number(Self.left))\" y=\"\(number(Self.top))\""
    body += " width=\"\(number(Self.width - Self.left - Self.right))\""
    body += " height=\"\(number(Self.height - Self.top - Self.bottom))\"/></clipPath>\n"
    body += "<g clip-path=\"url(#frame\(identifier))\">\n"
    for (index, series) in group.series.enumerated() {
      body += polyline(Self.bucketed(series.points), axes, cssClass: "raw s\(index % 6)")
    }
    for (index, series) in group.series.enumerated() {
      body += polyline(
        Self.bucketed(Self.smoothed(series.points)), axes, cssClass: "smooth s\(index % 6)")
    }
    body += "</g>\n"
    let legend = group.series.enumerated().map { index, series in
      "<span><i class=\"s\(index % 6)\"></i>\(ReportText.escaped(series.name))</span>"
    }
    let title = ReportText.escaped(group.title)
    return """
      <figure class="chart"><figcaption>\(title)<span class="legend">\(legend.joined())</span></figcaption>
      <svg viewBox="0 0 \(number(Self.width)) \(number(Self.height))" role="img" aria-label="\(title)">
      \(body)</svg></figure>

      """
  }

  private func polyline(_ points: [ReportContent.Point], _ axes: Axes, cssClass: String) -> String {
    let coordinates = points.map { "\(number(axes.pixelX($0.x))),\(number(axes.pixelY($0.y)))" }
    return "<polyline class=\"\(cssClass)\" points=\"\(coordinates.joined(separator: " "))\"/>\n"
  }

  /// Exponential mean over about a thirtieth of the points, divided by the weight gathered so far
  /// so that it does not start at zero.
  static func smoothed(_ points: [ReportContent.Point]) -> [ReportContent.Point] {
    let decay = 1 - 1 / max(Double(points.count) / 30, 1)
    var (sum, weight) = (0.0, 0.0)
    return points.map { point in
      sum = decay * sum + (1 - decay) * point.y
      weight = decay * weight + (1 - decay)
      return ReportContent.Point(x: point.x, y: sum / weight)
    }
  }

  /// At most `largestPointCount` points, each the mean of an equal number of neighbors.
  static func bucketed(_ points: [ReportContent.Point]) -> [ReportContent.Point] {
    let size = (points.count + largestPointCount - 1) / largestPointCount
    guard size > 1 else { return points }
    return stride(from: 0, to: points.count, by: size).map { start in
      let bucket = points[start..<min(start + size, points.count)]
      let (x, y) = bucket.reduce((0.0, 0.0)) { ($0.0 + $1.x, $0.1 + $1.y) }
      return ReportContent.Point(x: x / Double(bucket.count), y: y / Double(bucket.count))
    }
  }

  private func number(_ value: Double) -> String { ReportText.fixed(value, digits: 1) }
}

/// Data to pixels, and round tick values.
private struct Axes {
  let x: ClosedRange<Double>
  let y: ClosedRange<Double>

  init(_ series: [ReportContent.Series]) {
    let points = series.flatMap(\.points)
    x = Self.padded(points.map(\.x), share: 0)
    let sorted = points.map(\.y).sorted()
    let margin = sorted.count / 100
    y = Self.padded(
      sorted.dropFirst(margin).dropLast(margin)
        + series.flatMap { LineChart.smoothed($0.points).map(\.y) }, share: 0.05)
  }

  func pixelX(_ value: Double) -> Double {
    LineChart.left + (value - x.lowerBound) / (x.upperBound - x.lowerBound)
      * (LineChart.width - LineChart.left - LineChart.right)
  }

  func pixelY(_ value: Double) -> Double {
    LineChart.height - LineChart.bottom - (value - y.lowerBound) / (y.upperBound - y.lowerBound)
      * (LineChart.height - LineChart.top - LineChart.bottom)
  }

  var horizontalTicks: [Double] { Self.ticks(in: x, about: 6) }
  var verticalTicks: [Double] { Self.ticks(in: y, about: 5) }

  /// The range of the values and a share of it on both sides, never empty.
  private static func padded(_ values: some Collection<Double>, share: Double) -> ClosedRange<
    Double
  > {
    let low = values.min() ?? 0
    let high = values.max() ?? 1
    let margin = high > low ? share * (high - low) : max(abs(low), 1) / 2
    return (low - margin)...(high + margin)
  }

  /// Multiples of 1, 2 or 5 times a power of ten.
  private static func ticks(in range: ClosedRange<Double>, about count: Double) -> [Double] {
    let rough = (range.upperBound - range.lowerBound) / count
    let power = pow(10, floor(log10(rough)))
    let step = ([1, 2, 5].first { $0 * power >= rough } ?? 10) * power
    let first = (range.lowerBound / step).rounded(.up)
    let last = (range.upperBound / step).rounded(.down)
    guard first.isFinite, last.isFinite, last >= first, last - first < 100 else { return [] }
    return stride(from: first, through: last, by: 1).map { $0 * step }
  }
}
