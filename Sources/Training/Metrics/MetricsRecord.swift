// One line of `metrics.jsonl`: what a step of a phase cost and what it was worth.

import Basics

/// A value beside the fixed fields of a record.
package enum MetricsValue: Hashable, Sendable {
  case number(Double)
  case integer(Int)
  case text(String)
}

package struct MetricsRecord: Hashable, Sendable {
  /// The names of the fixed fields, in the order of the line.
  package static let fixedFields = [
    "phase", "step", "loss", "tokens_per_s", "seconds", "peak_bytes",
  ]

  package var phase: String
  /// The step that was finished, counted from 1 within its phase.
  package var step: Int
  package var loss: Double
  package var tokensPerSecond: Double
  package var seconds: Double
  /// Peak resident memory, summed over ranks; pages that ranks share count for each.
  package var peakByteCount: Int
  /// Further fields, written in this order. A name that ends in `_loss` becomes a curve of the report.
  package var further: [(name: String, value: MetricsValue)]

  /// - Precondition: further names differ from each other and from the fixed ones.
  package init(
    phase: String, step: Int, loss: Double, tokensPerSecond: Double, seconds: Double,
    peakByteCount: Int, further: [(name: String, value: MetricsValue)] = []
  ) {
    let names = Self.fixedFields + further.map(\.name)
    require(Set(names).count == names.count, "a field twice among \(names)")
    self.phase = phase
    self.step = step
    self.loss = loss
    self.tokensPerSecond = tokensPerSecond
    self.seconds = seconds
    self.peakByteCount = peakByteCount
    self.further = further
  }

  /// The line without its newline. Numbers are the shortest decimals that read back to the same
  /// bits; NaN and infinities, which JSON lacks, are null.
  package var jsonLine: String {
    let fixed: [(name: String, value: MetricsValue)] = [
      ("phase", .text(phase)), ("step", .integer(step)), ("loss", .number(loss)),
      ("tokens_per_s", .number(tokensPerSecond)), ("seconds", .number(seconds)),
      ("peak_bytes", .integer(peakByteCount)),
    ]
    let fields = (fixed + further).map { "\($0.name.jsonQuoted):\(Self.json($0.value))" }
    return "{\(fields.joined(separator: ","))}"
  }

  package static func == (a: Self, b: Self) -> Bool { a.jsonLine == b.jsonLine }
  package func hash(into hasher: inout Hasher) { hasher.combine(jsonLine) }

  private static func json(_ value: MetricsValue) -> String {
    switch value {
    case .number(let number): number.isFinite ? "\(number)" : "null"
    case .integer(let integer): "\(integer)"
    case .text(let text): text.jsonQuoted
    }
  }
}
