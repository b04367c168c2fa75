// Curves and phase rows from `metrics.jsonl`: one JSON object a line with `phase` and `step`.
//
// A run may have been killed in the middle of a line, so lines that are not whole objects are
// skipped and counted. Numbers that JSON cannot hold (a NaN loss) are null there and a gap here.

package import Foundation

package struct MetricsCurves: Sendable {
  /// One chart of losses per phase, then one chart of tokens per second with a series per phase.
  package let curves: [ReportContent.CurveGroup]
  package let phases: [ReportContent.PhaseRow]
  /// Lines that were not JSON objects with `phase` and `step`.
  package let skippedLineCount: Int

  /// - Throws: `unreadable`.
  package init(contentsOf url: URL) throws {
    let bytes: Data
    do {
      bytes = try Data(contentsOf: url)
    } catch {
      throw EvaluationError(
        code: .unreadable, message: "cannot read the metrics \(url.path)", cause: error)
    }
    self.init(jsonLines: [UInt8](bytes))
  }

  package init(jsonLines: [UInt8]) {
    var steps: [PhaseSteps] = []
    var skipped = 0
    for line in jsonLines.split(separator: UInt8(ascii: "\n")) {
      guard
        let object = try? JSONSerialization.jsonObject(with: Data(line)) as? [String: Any],
        let phase = object["phase"] as? String, let step = (object["step"] as? NSNumber)?.intValue
      else {
        skipped += 1
        continue
      }
      let values = object.compactMapValues { ($0 as? NSNumber)?.doubleValue }
      if let index = steps.firstIndex(where: { $0.phase == phase }) {
        steps[index].records.append((step, values))
      } else {
        steps.append(PhaseSteps(phase: phase, records: [(step, values)]))
      }
    }
    skippedLineCount = skipped
    phases = steps.map(\.row)
    let speeds = steps.map { $0.series("tokens_per_s", name: $0.phase) }.filter {
      !$0.points.isEmpty
    }
    curves =
      steps.map(\.losses).filter { !$0.series.isEmpty }
      + (speeds.isEmpty ? [] : [ReportContent.CurveGroup(title: "tokens/s", series: speeds)])
  }
}

private struct PhaseSteps {
  let phase: String
  var records: [(step: Int, values: [String: Double])]

  func series(_ key: String, name: String) -> ReportContent.Series {
    ReportContent.Series(
      name: name,
      points: records.compactMap { record in
        guard let value = record.values[key], value.isFinite else { return nil }
        return ReportContent.Point(x: Double(record.step), y: value)
      })
  }

  /// `loss`, then every `…_loss` by name.
  var losses: ReportContent.CurveGroup {
    let keys = Set(records.flatMap(\.values.keys)).filter { $0.hasSuffix("_loss") }.sorted()
    return ReportContent.CurveGroup(
      title: "\(phase): loss",
      series: (["loss"] + keys).map { series($0, name: $0) }.filter { !$0.points.isEmpty })
  }

  var row: ReportContent.PhaseRow {
    let losses = series("loss", name: "").points.map(\.y)
    let speeds = series("tokens_per_s", name: "").points.map(\.y)
    let peak = records.compactMap { $0.values["peak_bytes"] }.max()
    return ReportContent.PhaseRow(
      phase: phase, lastStep: records.map(\.step).max() ?? 0,
      seconds: records.reduce(0) { $0 + ($1.values["seconds"] ?? 0) },
      finalLoss: mean(losses.suffix((losses.count + 9) / 10)), tokensPerSecond: mean(speeds[...]),
      peakByteCount: peak.flatMap { Int(exactly: $0.rounded()) })
  }

  private func mean(_ values: ArraySlice<Double>) -> Double? {
    values.isEmpty ? nil : values.reduce(0, +) / Double(values.count)
  }
}
