// Times a training step and writes its record.

import Basics
import Exchange
import Foundation
import MeshLayout
import ProcessMesh

final class StepMeter {
  private let context: RunContext
  private let phase: String
  private let stepCount: Int
  /// Steps of earlier phases, for files that count through the run.
  private let firstGlobalStep: Int
  private var startTime = ContinuousClock.now

  init(context: RunContext, phase: String, stepCount: Int, firstGlobalStep: Int = 0) {
    self.context = context
    self.phase = phase
    self.stepCount = stepCount
    self.firstGlobalStep = firstGlobalStep
  }

  /// Starts the clock of a step.
  func begin() { startTime = .now }

  /// Writes what the step since `begin()` cost; its tokens are the video tokens of the batch.
  func record(
    step: Int, agreement: RunContext.StepAgreement,
    further: [(name: String, value: MetricsValue)]
  ) {
    let seconds = (ContinuousClock.now - startTime) / .seconds(1)
    let statistics = context.takeTraffic()
    let tokens = Double(context.batchSize * context.configuration.videoTokenCount)
    let record = MetricsRecord(
      phase: phase, step: step + 1, loss: agreement.meanLoss,
      tokensPerSecond: tokens / max(seconds, 1e-9), seconds: seconds,
      peakByteCount: agreement.peakByteCount, further: further + traffic(statistics))
    context.attempt {
      try context.reporter.record(
        record, stepCount: stepCount, globalStep: firstGlobalStep + step + 1)
    }
  }

  /// Writes what the end of the phase sent: averages, of which no step has a record.
  /// - Collective: over the context's transport.
  func finish() throws {
    try context.joinTraffic()
    let moved = context.takeTraffic()[.movingAverages]
    guard context.transport.isRoot else { return }
    context.attempt { try TrafficRecord.note(moved, of: phase, in: context.folder) }
  }

  /// What all ranks sent in the step, by kind of message, and how many seconds of a rank that took,
  /// the mean over ranks.
  private func traffic(
    _ statistics: ExchangeStatistics
  ) -> [(name: String, value: MetricsValue)] {
    let ranks = Double(context.transport.size)
    let movesActivations = context.ranks.sequence != nil || context.shape.generatorRanks != nil
    let kinds = TrafficKind.inSteps.filter { $0 != .activations || movesActivations }
    return kinds.flatMap {
      kind -> [(name: String, value: MetricsValue)] in
      let traffic = statistics[kind]
      return [
        ("\(kind.rawValue)_raw_bytes", .integer(traffic.rawByteCount)),
        ("\(kind.rawValue)_wire_bytes", .integer(traffic.wireByteCount)),
      ]
    } + [
      ("encode_s", .number(statistics.total.encodeSeconds / ranks)),
      ("wait_s", .number(statistics.total.waitSeconds / ranks)),
    ]
  }
}

extension TrafficKind {
  /// What steps send; moving averages travel once a phase.
  static let inSteps = [TrafficKind.gradients, .parameters, .activations]
}

extension StepOutcome {
  /// The gradient norm, or the word that the step was skipped.
  func metrics(prefix: String) -> [(name: String, value: MetricsValue)] {
    switch self {
    case .updated(let norm, let clip):
      [("\(prefix)gradient_norm", .number(norm))]
        + (clip == nil ? [] : [("\(prefix)clipped", .integer(1))])
    case .skippedNonFinite: [("\(prefix)skipped", .text("gradient not finite"))]
    }
  }
}
