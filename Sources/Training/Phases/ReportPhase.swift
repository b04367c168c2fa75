// Report: everything that a run left behind, as one page.

package import Evaluation
import Exchange
import Foundation
import VideoData

package struct ReportPhase {
  /// Reads the run folder; a part that is not there is left out.
  package static func content(
    of configuration: RunConfiguration, in folder: RunFolder, title: String,
    environment: [ReportContent.Fact]
  ) throws -> ReportContent {
    let curves = try? MetricsCurves(contentsOf: folder.metrics)
    var samples: [ReportContent.Sample] = []
    for mode in SamplePhase.Mode.allCases {
      let named = NamedSampler.all(configuration).map { ($0.slug, $0.name) }
      for (slug, name) in (mode == .firstFrame ? [("source", "held-out source")] : []) + named {
        let mp4 = try? Data(contentsOf: SamplePhase.video(mode, slug, in: folder))
        let png = try? Data(contentsOf: SamplePhase.sheet(mode, slug, in: folder))
        guard mp4 != nil || png != nil else { continue }
        samples.append(
          ReportContent.Sample(
            title: name,
            caption: mode == .firstFrame ? "first frame given" : "without conditions",
            mp4: mp4.map { [UInt8]($0) }, png: png.map { [UInt8]($0) }))
      }
    }
    return ReportContent(
      title: title, subtitle: "Weak-to-Strong Video Distillation",
      samplerTables: EvaluatePhase.tables(of: configuration, in: folder), samples: samples,
      curves: curves?.curves ?? [], phases: curves?.phases ?? [],
      memory: (try? MemoryRecord(reading: folder).entries) ?? [],
      traffic: (try? traffic(in: folder)) ?? [], configuration: configuration.yaml,
      environment: environment)
  }

  /// Writes `report.html`.
  package static func write(_ content: ReportContent, to folder: RunFolder) throws {
    try RunFolder.write(Data(HTMLReport(content).html.utf8), to: folder.report)
  }

  /// Sums the bytes of each kind of message over the lines of metrics.jsonl, and what the ends of
  /// phases sent.
  private static func traffic(in folder: RunFolder) throws -> [ReportContent.TrafficEntry] {
    var totals: [String: (raw: Int, wire: Int)] = [:]
    let text = String(decoding: try Data(contentsOf: folder.metrics), as: UTF8.self)
    for line in text.split(separator: "\n") {
      guard
        let fields = try? JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any],
        let phase = fields["phase"] as? String
      else { continue }
      for (key, value) in fields {
        guard let bytes = (value as? NSNumber)?.intValue else { continue }
        for kind in TrafficKind.inSteps.map(\.rawValue) {
          if key == "\(kind)_raw_bytes" {
            totals["\(phase): \(kind)", default: (0, 0)].raw += bytes
          }
          if key == "\(kind)_wire_bytes" {
            totals["\(phase): \(kind)", default: (0, 0)].wire += bytes
          }
        }
      }
    }
    for (phase, moved) in TrafficRecord(reading: folder).averages {
      totals["\(phase): moving averages"] = (moved.rawByteCount, moved.wireByteCount)
    }
    return totals.sorted { $0.key < $1.key }.map {
      ReportContent.TrafficEntry(
        kind: $0.key, rawByteCount: $0.value.raw, wireByteCount: $0.value.wire)
    }
  }
}
