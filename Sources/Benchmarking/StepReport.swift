// What a step benchmark says, for people and as JSON. `Benchmarks/peers` writes the same keys.

package import DenseKernels
import Evaluation
import Foundation
import Tensors
import Training

package struct StepReport: Encodable, Sendable {
  /// Peak bytes of one account of the ledger, of the rank that needs most.
  package struct Account: Encodable, Equatable, Sendable {
    package let role: String
    package let category: String
    package let peakBytes: Int
  }

  package let benchmark = "step"
  package let implementation = "w2svd"
  package let machine: Machine
  package let model: String
  package let mode: StepMode
  package let dtype: ProductPrecision
  package let threads: Int
  package let ranks: Int
  package let recompute: Bool
  package let parameters: Int
  package let videoTokens: Int
  package let textTokens: Int
  package let batch: Int
  /// Of the slowest rank.
  package let timing: Timing
  /// Of all ranks.
  package let modelFlop: Double
  /// Of one core; fused multiply-adds in Float32, whatever the products' precision.
  package let peakGigaflops: Double
  /// Of the run's last loss, as a check that work was done.
  package let loss: Double?
  package let pageFaultsPerRun: Double
  /// Of the ledgers of all ranks.
  package let peakBytes: Int
  package let accounts: [Account]
  /// Of the whole process (VmHWM).
  package let peakResidentBytes: Int

  init(_ benchmark: StepBenchmark, results: [StepBenchmark.RankResult], peakGigaflops: Double) {
    machine = .current()
    model = benchmark.model.name
    mode = benchmark.mode
    dtype = benchmark.precision
    threads = benchmark.threadCount
    ranks = benchmark.rankCount
    recompute = benchmark.recompute
    parameters = results[0].parameterCount
    videoTokens = benchmark.model.videoTokenCount
    textTokens = benchmark.model.textTokenCount
    batch = benchmark.model.sampleCount * benchmark.rankCount
    let slowest = results.max { $0.timing.median < $1.timing.median } ?? results[0]
    timing = slowest.timing
    modelFlop =
      OperationCount.total(benchmark.mode, benchmark.model) * Double(benchmark.rankCount)
    self.peakGigaflops = peakGigaflops
    loss = results[0].loss
    pageFaultsPerRun = slowest.pageFaultsPerRun
    peakBytes = results.reduce(0) { $0 + $1.ledger.totalPeakByteCount }
    let fullest =
      results.max { $0.ledger.totalPeakByteCount < $1.ledger.totalPeakByteCount } ?? results[0]
    accounts = fullest.ledger.entries.map {
      Account(role: $0.role.rawValue, category: $0.category.rawValue, peakBytes: $0.peakByteCount)
    }
    peakResidentBytes = ResourceUsage.current()?.peakByteCount ?? 0
  }

  package var gigaflopsPerSecond: Double { modelFlop / timing.median / 1e9 }
  /// Share of the peak of as many cores as threads and ranks may use.
  package var peakShare: Double {
    gigaflopsPerSecond / (peakGigaflops * Double(threads * ranks))
  }
  package var tokensPerSecond: Double {
    Double(batch * videoTokens) / timing.median
  }

  // MARK: JSON

  private enum CodingKeys: String, CodingKey {
    case benchmark, implementation, machine, model, mode, dtype, threads, ranks, recompute
    case parameters, videoTokens, textTokens, batch, modelFlop, loss, pageFaultsPerRun, peakBytes
    case accounts, peakShare
    case tokensPerSecond = "tokens_per_s"
    case gigaflopsPerSecond = "gflop_per_s"
    case peakGigaflops = "fma_peak_gflop_per_s"
    case peakResidentBytes = "peak_rss_bytes"
  }

  package func encode(to encoder: any Encoder) throws {
    try timing.encode(to: encoder)
    var keys = encoder.container(keyedBy: CodingKeys.self)
    try keys.encode(benchmark, forKey: .benchmark)
    try keys.encode(implementation, forKey: .implementation)
    try keys.encode(machine, forKey: .machine)
    try keys.encode(model, forKey: .model)
    try keys.encode(mode, forKey: .mode)
    try keys.encode(dtype, forKey: .dtype)
    try keys.encode(threads, forKey: .threads)
    try keys.encode(ranks, forKey: .ranks)
    try keys.encode(recompute, forKey: .recompute)
    try keys.encode(parameters, forKey: .parameters)
    try keys.encode(videoTokens, forKey: .videoTokens)
    try keys.encode(textTokens, forKey: .textTokens)
    try keys.encode(batch, forKey: .batch)
    try keys.encode(modelFlop, forKey: .modelFlop)
    try keys.encode(gigaflopsPerSecond, forKey: .gigaflopsPerSecond)
    try keys.encode(peakGigaflops, forKey: .peakGigaflops)
    try keys.encode(peakShare, forKey: .peakShare)
    try keys.encode(tokensPerSecond, forKey: .tokensPerSecond)
    try keys.encodeIfPresent(loss, forKey: .loss)
    try keys.encode(pageFaultsPerRun, forKey: .pageFaultsPerRun)
    try keys.encode(peakBytes, forKey: .peakBytes)
    try keys.encode(accounts, forKey: .accounts)
    try keys.encode(peakResidentBytes, forKey: .peakResidentBytes)
  }

  // MARK: Text

  /// One line of a table.
  package var line: String {
    TextTable.row(
      "\(mode.rawValue) \(dtype.rawValue)", "", timing,
      String(format: "%7.1f GFLOP/s", gigaflopsPerSecond),
      String(format: "%5.1f %% of the FMA peak", 100 * peakShare), ReportText.bytes(peakBytes))
  }

  /// The model and the machine.
  package var heading: String {
    """
    \(model): \(parameters) parameters, \(videoTokens) video and \(textTokens) text tokens, batch \(batch)
    \(machine.cpu), \(machine.cores) cores, \(threads) threads, \(ranks) ranks, \
    FMA peak \(Int(peakGigaflops)) GFLOP/s
    """
  }

  /// The line with everything around it.
  package var text: String {
    var lines = [
      heading, line,
      String(
        format: "%.1f GFLOP a run, %.0f tokens/s, %.0f page faults a run", modelFlop / 1e9,
        tokensPerSecond, pageFaultsPerRun),
      "peak bytes (ledger)",
    ]
    lines += accounts.map {
      "  " + "\($0.role) \($0.category)".padding(toLength: 26, withPad: " ", startingAt: 0)
        + ReportText.bytes($0.peakBytes)
    }
    lines.append("  at the fullest moment     " + ReportText.bytes(peakBytes))
    lines.append("  resident, whole process   " + ReportText.bytes(peakResidentBytes))
    return lines.joined(separator: "\n")
  }
}
