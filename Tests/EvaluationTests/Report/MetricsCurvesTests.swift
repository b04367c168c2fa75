import Evaluation
import Foundation
import TestSupport
import Testing

@Suite struct MetricsCurvesTests {
  private let lines = """
    {"phase":"teach","step":1,"loss":0.5,"tokens_per_s":100,"seconds":2.0,"peak_bytes":1000}
    {"phase":"teach","step":2,"loss":0.25,"tokens_per_s":300,"seconds":1.0,"peak_bytes":3000}
    not json
    {"phase":"distill","step":1,"loss":null,"fake_loss":2.5,"tokens_per_s":50,"seconds":4.0}
    {"phase":"teach","step":3,"lo
    """

  @Test func `curves come per phase and a torn last line is skipped`() {
    let metrics = MetricsCurves(jsonLines: Array(lines.utf8))
    #expect(metrics.skippedLineCount == 2)
    #expect(metrics.curves.map(\.title) == ["teach: loss", "distill: loss", "tokens/s"])
    #expect(
      metrics.curves[0].series.map(\.points) == [[.init(x: 1, y: 0.5), .init(x: 2, y: 0.25)]])
    #expect(metrics.curves[1].series.map(\.name) == ["fake_loss"])
    #expect(metrics.curves[2].series.map(\.name) == ["teach", "distill"])
  }

  @Test func `phases are summed up`() {
    let metrics = MetricsCurves(jsonLines: Array(lines.utf8))
    #expect(
      metrics.phases == [
        .init(
          phase: "teach", lastStep: 2, seconds: 3, finalLoss: 0.25, tokensPerSecond: 200,
          peakByteCount: 3000),
        .init(phase: "distill", lastStep: 1, seconds: 4, tokensPerSecond: 50),
      ])
  }

  @Test func `an empty file has no curves, a missing one is an error`() throws {
    let metrics = MetricsCurves(jsonLines: [])
    #expect(metrics.curves.isEmpty && metrics.phases.isEmpty && metrics.skippedLineCount == 0)
    try withTemporaryFolder { folder in
      let error = #expect(throws: EvaluationError.self) {
        try MetricsCurves(contentsOf: folder.appending(path: "metrics.jsonl"))
      }
      #expect(error?.code == .unreadable)
    }
  }
}
