// What a benchmark of kernels says: one row for each kernel, precision and size.

package import DenseKernels
import Foundation
import Training

/// One timed kernel.
package struct KernelRow: Encodable, Equatable, Sendable {
  package let name: String
  package let dtype: ProductPrecision
  /// Sizes by name, such as `l` and `k`.
  package let sizes: [String: Int]
  package let timing: Timing
  /// Floating-point operations of a run; nil where bytes are what counts.
  package var flop: Double?
  /// Bytes that a run must read and write, each operand once.
  package var byteCount: Double?
  /// What the machine could do: GFLOP/s for operations, GB/s for bytes.
  package var limit: Double?

  package init(
    _ name: String, _ dtype: ProductPrecision = .float32, sizes: [String: Int], timing: Timing
  ) {
    self.name = name
    self.dtype = dtype
    self.sizes = sizes
    self.timing = timing
  }

  package var gigaflopsPerSecond: Double? { flop.map { $0 / timing.median / 1e9 } }
  package var gigabytesPerSecond: Double? { byteCount.map { $0 / timing.median / 1e9 } }
  /// Share of the limit that is reached.
  package var share: Double? {
    guard let limit, let rate = gigaflopsPerSecond ?? gigabytesPerSecond else { return nil }
    return rate / limit
  }

  private enum CodingKeys: String, CodingKey {
    case name, dtype, sizes, flop, share
    case gigaflopsPerSecond = "gflop_per_s"
    case byteCount = "bytes"
    case gigabytesPerSecond = "gb_per_s"
  }

  package func encode(to encoder: any Encoder) throws {
    try timing.encode(to: encoder)
    var keys = encoder.container(keyedBy: CodingKeys.self)
    try keys.encode(name, forKey: .name)
    try keys.encode(dtype, forKey: .dtype)
    try keys.encode(sizes, forKey: .sizes)
    try keys.encodeIfPresent(flop, forKey: .flop)
    try keys.encodeIfPresent(gigaflopsPerSecond, forKey: .gigaflopsPerSecond)
    try keys.encodeIfPresent(byteCount, forKey: .byteCount)
    try keys.encodeIfPresent(gigabytesPerSecond, forKey: .gigabytesPerSecond)
    try keys.encodeIfPresent(share, forKey: .share)
  }

  package var line: String {
    let sizes = self.sizes.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
      .joined(separator: ", ")
    let rate =
      gigaflopsPerSecond.map { String(format: "%7.1f GFLOP/s", $0) }
      ?? gigabytesPerSecond.map { String(format: "%7.1f GB/s", $0) } ?? ""
    let limit = share.map {
      String(format: "%5.1f %% of the %@", 100 * $0, flop == nil ? "triad" : "FMA peak")
    }
    return TextTable.row("\(name) \(dtype.rawValue)", sizes, timing, rate, limit ?? "")
  }
}

/// The rows of one benchmark with where they were measured.
package struct KernelReport: Encodable, Sendable {
  package let benchmark: String
  package let implementation = "w2svd"
  package let machine: Machine
  package let rows: [KernelRow]
  /// Of as many cores as threads are used; measured where operations count.
  package let peakGigaflops: Double?
  /// z = x + a y over arrays that fit no cache; measured where bytes count.
  package let triadGigabytes: Double?
  /// Of the whole process (VmHWM).
  package let peakResidentBytes: Int

  init(
    _ benchmark: String, rows: [KernelRow], peakGigaflops: Double? = nil,
    triadGigabytes: Double? = nil, peakResidentBytes: Int
  ) {
    self.benchmark = benchmark
    machine = .current()
    self.rows = rows.map { row in
      var row = row
      row.limit = row.flop == nil ? triadGigabytes : peakGigaflops
      return row
    }
    self.peakGigaflops = peakGigaflops
    self.triadGigabytes = triadGigabytes
    self.peakResidentBytes = peakResidentBytes
  }

  private enum CodingKeys: String, CodingKey {
    case benchmark, implementation, machine, rows
    case peakGigaflops = "fma_peak_gflop_per_s"
    case triadGigabytes = "triad_gb_per_s"
    case peakResidentBytes = "peak_rss_bytes"
  }

  package var text: String {
    var lines = ["\(machine.cpu), \(machine.cores) cores, \(machine.threads) threads"]
    if let peakGigaflops { lines.append(String(format: "FMA peak %.0f GFLOP/s", peakGigaflops)) }
    if let triadGigabytes { lines.append(String(format: "triad %.1f GB/s", triadGigabytes)) }
    return (lines + rows.map(\.line)).joined(separator: "\n")
  }
}

/// The benchmarks of single kernels.
package enum KernelBenchmark: String, CaseIterable, Sendable {
  case attention, gemm, optimizer, elementwise

  package struct Options: Sendable {
    package var precisions: [ProductPrecision] = [.float32, .bfloat16]
    package var threadCount = 1
    /// Least number of timed runs of a row.
    package var repeatCount = 5
    /// Tokens of attention.
    package var lengths = [512, 1_024, 2_048, 4_096, 8_192]
    package var headWidths = [64, 128]

    package init() {}
  }

  /// The rates of the machine are measured after the rows, so that they do not count as memory.
  package func run(_ options: Options) -> KernelReport {
    BLASRuntime.useThreads(options.threadCount)
    defer { BLASRuntime.useThreads(1) }
    let rows: [KernelRow]
    switch self {
    case .attention: rows = AttentionRows.measure(options)
    case .gemm: rows = ProductRows.measure(options)
    case .optimizer: rows = OptimizerRows.measure(options)
    case .elementwise: rows = ElementwiseRows.measure(options)
    }
    let resident = ResourceUsage.current()?.peakByteCount ?? 0
    let countsOperations = self == .attention || self == .gemm
    return KernelReport(
      rawValue, rows: rows,
      peakGigaflops: countsOperations
        ? Machine.fmaPeakGigaflops() * Double(options.threadCount) : nil,
      triadGigabytes: countsOperations ? nil : MachineProbes.measureTriad(),
      peakResidentBytes: resident)
  }
}
