// A sampler table for people who read a log.

package import Evaluation
import Foundation

extension ReportContent.SamplerTable {
  /// Title and rows, in columns; a column that no row has is left out.
  package var plainText: String {
    let columns: [(title: String, text: (ReportContent.SamplerRow) -> String?)] = [
      ("Fréchet", { $0.frechetDistance.map { String(format: "%.1f", $0) } }),
      ("motion", { $0.motion.map { String(format: "%.4f", $0) } }),
      ("sharpness", { $0.sharpness.map { String(format: "%.4f", $0) } }),
      ("PSNR dB", { $0.peakSignalToNoise.map { String(format: "%.1f", $0) } }),
      ("SSIM", { $0.structuralSimilarity.map { String(format: "%.3f", $0) } }),
      ("evaluations", { $0.networkEvaluationCount.map { "\($0)" } }),
      ("s/clip", { $0.secondsPerClip.map { String(format: "%.3f", $0) } }),
    ]
    let shown = columns.filter { column in rows.contains { column.text($0) != nil } }
    let nameWidth = rows.map(\.name.count).max() ?? 0
    func line(_ name: String, _ cells: [String]) -> String {
      name.padding(toLength: nameWidth, withPad: " ", startingAt: 0)
        + cells.map { String(repeating: " ", count: max(1, 13 - $0.count)) + $0 }.joined()
    }
    let lines = rows.map { row in line(row.name, shown.map { $0.text(row) ?? "" }) }
    return ([title, line("", shown.map(\.title))] + lines).joined(separator: "\n")
  }
}
