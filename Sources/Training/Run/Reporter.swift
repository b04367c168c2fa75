// What rank 0 tells: progress to the user, records to metrics.jsonl and TensorBoard. Other ranks have
// a reporter without outputs.

import Foundation

package final class Reporter {
  private var progress: ProgressLine?
  private var metrics: MetricsLog?
  private var events: EventFileWriter?
  private let output: (String) -> Void

  /// A reporter that says nothing.
  package init() { output = { _ in } }

  /// - Parameter output: takes text as it is; a line ends with its newline.
  package init(style: ProgressLine.Style, output: @escaping (String) -> Void) {
    self.output = output
    let start = ContinuousClock.now
    progress = ProgressLine(
      style: style, clock: { (ContinuousClock.now - start) / .seconds(1) }, output: output)
  }

  /// Starts the files of the run folder; what a killed run wrote beyond `position` is cut off.
  package func open(_ folder: RunFolder, resumingAt position: MetricsLog.Position?) throws {
    guard progress != nil else { return }
    metrics = try MetricsLog(url: folder.metrics, resumingAt: position)
    events = try EventFileWriter(folder: folder.url)
  }

  /// One line for the user.
  package func say(_ text: String) {
    progress?.finish()
    output(text + "\n")
  }

  package func begin(phase: String, step: Int) { progress?.begin(phase: phase, step: step) }

  /// A step of a training phase.
  package func record(_ record: MetricsRecord, stepCount: Int, globalStep: Int) throws {
    guard progress != nil else { return }
    try metrics?.append(record)
    var scalars: [(tag: String, value: Double)] = [
      ("\(record.phase)/loss", record.loss),
      ("\(record.phase)/tokens_per_s", record.tokensPerSecond),
      ("\(record.phase)/peak_bytes", Double(record.peakByteCount)),
    ]
    for (name, value) in record.further {
      if case .number(let number) = value { scalars.append(("\(record.phase)/\(name)", number)) }
    }
    try events?.write(step: globalStep, scalars: scalars)
    progress?.update(
      ProgressLine.Progress(
        phase: record.phase, step: record.step, stepCount: stepCount, loss: record.loss,
        tokensPerSecond: record.tokensPerSecond, byteCount: record.peakByteCount))
  }

  /// A step of a phase that has no loss.
  package func update(phase: String, step: Int, stepCount: Int) {
    progress?.update(
      ProgressLine.Progress(phase: phase, step: step, stepCount: stepCount))
  }

  package func finishPhase() { progress?.finish() }
}
