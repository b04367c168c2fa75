// Whole steps of a model: what the user waits for.

import Basics
package import DenseKernels
import Foundation
import ProcessMesh
import Tensors
import Training

/// What one run does.
package enum StepMode: String, CaseIterable, Codable, Sendable {
  /// Inference: one velocity.
  case forward
  /// Flow-matching forward and backward, AdamW without clipping and average.
  case train
  /// Generator turn (sample with gradient, fake score, real score with guidance, AdamW) and critic
  /// turn (flow matching of the adapter, AdamW).
  case iteration = "w2svd"
}

package struct StepBenchmark: Sendable {
  package var model: BenchmarkModel
  package var mode: StepMode
  package var precision = ProductPrecision.float32
  /// Threads of a product.
  package var threadCount = 1
  /// Ranks as threads of this process, each with one microbatch.
  package var rankCount = 1
  package var recompute = false
  package var repeatCount = 5

  package init(model: BenchmarkModel, mode: StepMode) {
    self.model = model
    self.mode = mode
  }

  /// - Throws: what reading the model's folder throws.
  package func run() throws -> StepReport {
    BLASRuntime.useThreads(threadCount)
    defer { BLASRuntime.useThreads(1) }
    let peakBefore = Machine.fmaPeakGigaflops()
    let results = try InProcessMesh.run(size: rankCount) { [self] transport in
      try measure(on: transport)
    }
    let peak = max(peakBefore, Machine.fmaPeakGigaflops())
    return StepReport(self, results: results, peakGigaflops: peak)
  }

  /// What one rank measured.
  struct RankResult: Sendable {
    let timing: Timing
    let parameterCount: Int
    let loss: Double?
    let pageFaultsPerRun: Double
    let ledger: MemoryLedger
  }

  private func measure(on transport: any Transport) throws -> RankResult {
    let run = try StepRun(self, transport: transport)
    var loss: Double?
    // The second run still touches pages for the first time.
    for _ in 0..<2 { loss = try run.perform() }
    try transport.barrier()
    let faults = Self.pageFaultCount()
    let clock = ContinuousClock()
    let seconds = try (0..<repeatCount).map { _ in
      try clock.measure { loss = try run.perform() } / .seconds(1)
    }
    return RankResult(
      timing: Timing(seconds), parameterCount: run.parameterCount, loss: loss,
      pageFaultsPerRun: Double(Self.pageFaultCount() - faults) / Double(repeatCount),
      ledger: run.arena.ledger)
  }

  /// Minor page faults of this process so far; 0 where the system has no /proc.
  private static func pageFaultCount() -> Int {
    guard let stat = try? String(contentsOfFile: "/proc/self/stat", encoding: .utf8),
      let nameEnd = stat.lastIndex(of: ")")
    else { return 0 }
    let fields = stat[stat.index(after: nameEnd)...].split(separator: " ")
    return fields.count > 7 ? Int(fields[7]) ?? 0 : 0
  }
}
