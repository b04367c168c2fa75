// `w2svd doctor`: whether this machine is fit for a run, and how fast it is.

import ArgumentParser
import Compression
import DenseKernels
import Evaluation
import Foundation
import Training

struct DoctorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract:
      "Measures this machine, looks for what a run needs and exits with 1 if that is missing.",
    discussion: """
      Rates are those of one core: products (sgemm 1024³) against the peak of fused multiply-adds, and \
      memory (triad, three arrays of 64 MiB). Run it on an idle machine.
      """)

  @Flag(help: "Prints the findings as one JSON object on the last line. Default: off.")
  var json = false

  func run() throws {
    let findings = Self.findings()
    if json {
      try printJSON(["findings": findings])
    } else {
      for finding in findings { print(finding.line) }
    }
    let missing = findings.filter { $0.verdict == .missing }
    guard missing.isEmpty else {
      throw JobError(
        exitCode: .other,
        "a run needs \(missing.map(\.name).joined(separator: ", ")); run launch/bootstrap")
    }
  }

  private static func findings() -> [Finding] {
    kernels() + ranks() + tools() + [disk()]
  }

  // MARK: Speed

  private static func kernels() -> [Finding] {
    let peak = MachineProbes.measureFMAPeak()
    let products = MachineProbes.measureGEMM()
    let share = products / peak
    let percent = String(format: "%.0f %% of the peak", 100 * share)
    let threads = BLASRuntime.threadCount
    return [
      Finding("OpenBLAS kernels", BLASRuntime.coreName, note: BLASRuntime.configuration),
      Finding(
        "products", String(format: "%.0f GFLOP/s", products), value: products,
        // 240 of 265 on the reference machine, 125 with kernels of another CPU.
        share >= 0.75 ? .good : .doubtful,
        note: share >= 0.75
          ? percent : "\(percent); other programs run, or OPENBLAS_CORETYPE does not fit this CPU"),
      Finding("peak of the units", String(format: "%.0f GFLOP/s", peak), value: peak),
      {
        let rate = MachineProbes.measureTriad()
        return Finding("memory", String(format: "%.0f GB/s", rate), value: rate)
      }(),
      Finding(
        "BLAS threads", "\(threads)", value: Double(threads), threads == 1 ? .good : .doubtful,
        note: threads == 1
          ? nil : "results depend on it; leave OPENBLAS_NUM_THREADS unset or set it to 1"),
    ]
  }

  // MARK: Ranks

  /// Cores that this process may use against ranks that the launcher says share them.
  private static func ranks() -> [Finding] {
    let cores = ProcessInfo.processInfo.activeProcessorCount
    let environment = ProcessInfo.processInfo.environment
    let source = ["OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE"]
      .first { environment[$0].flatMap { Int($0) } != nil }
    guard let source, let ranks = environment[source].flatMap({ Int($0) }) else {
      return [Finding("cores", "\(cores)", value: Double(cores))]
    }
    return [
      Finding(
        "cores", "\(cores)", value: Double(cores), ranks > cores ? .doubtful : .good,
        note: ranks > cores
          ? "\(ranks) ranks share them (\(source)): they take turns, no step gets faster"
          : "for \(ranks) ranks (\(source))")
    ]
  }

  // MARK: Programs and room

  private static func tools() -> [Finding] {
    [
      Finding(program: "mpirun", ["--version"], purpose: "to start ranks"),
      Finding("zstd", ZstdLibrary.version),
      Finding(program: "ffmpeg", ["-version"], purpose: "to read and write videos"),
      Finding(program: "ffprobe", ["-version"], purpose: "to read videos"),
    ]
  }

  private static func disk() -> Finding {
    let attributes = try? FileManager.default.attributesOfFileSystem(forPath: ".")
    let free = (attributes?[.systemFreeSize] as? NSNumber)?.intValue ?? 0
    // The default run leaves about 150 MB: checkpoints, final folders, samples.
    let suffices = free >= 1 << 30
    return Finding(
      "free disk here", ReportText.bytes(free), value: Double(free), suffices ? .good : .doubtful,
      note: suffices ? nil : "a run keeps checkpoints of every network; make some room")
  }
}
