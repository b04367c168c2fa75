// Where a result was measured, and with what.

import DenseKernels
import Foundation
import Training

/// Processor and versions, as results name them.
package struct Machine: Encodable, Equatable, Sendable {
  package let cpu: String
  package let cores: Int
  package let threads: Int
  package let versions: [String: String]

  /// This machine now.
  package static func current() -> Machine {
    let cpuInformation = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
    let model = cpuInformation.split(separator: "\n").first { $0.hasPrefix("model name") }
    return Machine(
      cpu: model.flatMap { $0.split(separator: ":").last }
        .map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown",
      cores: ProcessInfo.processInfo.activeProcessorCount,
      threads: BLASRuntime.productThreadCount,
      versions: [
        "w2svd": Version.text,
        "openblas": BLASRuntime.configuration.split(separator: " ").prefix(2)
          .joined(separator: " "),
        "openblas_kernels": BLASRuntime.coreName,
      ])
  }

  /// Best of five: a peak is what the core can do, whatever else ran meanwhile.
  static func fmaPeakGigaflops() -> Double {
    (0..<5).map { _ in MachineProbes.measureFMAPeak(runCount: 1) }.max() ?? 0
  }
}
