// The command line of `w2svd-worker` (design, section 7).

import ArgumentParser
import DenseKernels
import Foundation
import MessagePassing
import ProcessMesh
import Training

struct WorkerCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "w2svd-worker",
    abstract: "Distils a video diffusion transformer over the ranks that mpirun started.",
    discussion: """
      Without arguments it runs the whole main job (prepare, teach, distill, sample, evaluate, report)
      from the embedded default configuration, and goes on where an earlier run of the same folder
      stopped. SIGTERM and SIGUSR1 finish the step, save and leave.

      Exit codes: 0 done, 2 configuration, 75 saved and wants to be resumed, 1 anything else.

      OPTIONS OF THE CONFIGURATION (key, default, unit: effect)

      \(optionTable)
      """,
    version: Version.text, subcommands: [BenchCommand.self])

  @Option(help: "A YAML file with what differs from the defaults.")
  var config: String?

  @Option(
    help: ArgumentHelp(
      "Overrides one key; may be repeated. Stronger than --config.", valueName: "key.path=value"))
  var set: [String] = []

  @Option(
    name: .customLong("run"),
    help: ArgumentHelp(
      "Name under runs/, or a folder if it has a slash.", valueName: "NAME_OR_DIR"))
  var runName = "main"

  @Option(
    help: ArgumentHelp(
      "auto: newest valid checkpoint of the run; never: start over, an earlier run is moved aside, at "
        + "every start with it; or a checkpoint folder to start from, after which the same command "
        + "goes on from what the run itself has saved.", valueName: "auto|never|PATH"))
  var resume = "auto"

  @Flag(help: "Prints the resolved configuration and the plan, and allocates nothing.")
  var dryRun = false

  func run() throws {
    let arguments = self
    MPIProgram.run(exitCode: { JobError($0).exitCode.rawValue }) { environment, transport in
      try arguments.run(on: transport, environment)
    }
  }

  /// Every rank's part; rank 0 alone talks.
  private func run(on transport: any Transport, _ environment: MPIEnvironment) throws -> Int32 {
    do {
      let configuration = try transport.onRoot { () throws -> String in
        try ConfigurationReader.read(
          file: config, overrides: set, rankCount: transport.size,
          warn: { FileHandle.standardError.write(Data("\($0)\n".utf8)) }
        ).yaml
      }
      let resolved = try ConfigurationReader.read(yaml: configuration)
      let plan = try RunPlan.made(
        for: resolved, resume: ResumeMode(resume), in: RunFolder(runName), on: transport)
      if dryRun {
        if transport.isRoot { print(configuration, plan.text, separator: "\n") }
        return plan.fits ? ExitCode.done.rawValue : ExitCode.configuration.rawValue
      }
      if let problem = plan.problem { throw JobError(exitCode: .configuration, problem) }
      let reporter =
        transport.isRoot
        ? Reporter(style: style(resolved), output: { Self.write($0) }) : Reporter()
      useThreads(resolved.compute.threads, transport)
      let job = try MainJob(
        configuration: resolved, folder: RunFolder(runName), resume: ResumeMode(resume),
        transport: transport, reporter: reporter, plan: plan, environment: facts(environment))
      return try job.run().rawValue
    } catch let error as JobError {
      if transport.isRoot {
        FileHandle.standardError.write(Data("w2svd-worker: \(error.message)\n".utf8))
      }
      return error.exitCode.rawValue
    }
  }

  private func useThreads(_ count: Int, _ transport: any Transport) {
    BLASRuntime.useThreads(count)
    let coreCount = ProcessInfo.processInfo.activeProcessorCount
    guard transport.isRoot && count > coreCount else { return }
    let message =
      "w2svd-worker: compute.threads is \(count), but rank 0 may use \(coreCount) core\(coreCount == 1 ? "" : "s"): "
      + "give mpirun --bind-to none or --map-by slot:PE=\(count), or lower compute.threads\n"
    FileHandle.standardError.write(Data(message.utf8))
  }

  private func style(_ configuration: RunConfiguration) -> ProgressLine.Style {
    if case .terminal(let width) = ProgressLine.Style.ofStandardOutput, Self.launcherHasTerminal {
      return .terminal(width: width)
    }
    return .plain(interval: configuration.log.everySeconds)
  }

  /// mpirun gives rank 0 a terminal of its own and copies what it says to wherever mpirun itself
  /// writes, which may be a file; where that cannot be found out, rank 0's own output decides.
  private static var launcherHasTerminal: Bool {
    let output = "/proc/\(getppid())/fd/1"
    guard let place = try? FileManager.default.destinationOfSymbolicLink(atPath: output) else {
      return true
    }
    return place.hasPrefix("/dev/pts/") || place.hasPrefix("/dev/tty") || place == "/dev/console"
  }

  private static func write(_ text: String) {
    FileHandle.standardOutput.write(Data(text.utf8))
  }

  private func facts(_ environment: MPIEnvironment) -> [(name: String, value: String)] {
    [
      ("version", Version.text), ("nodes", "\(environment.nodeCount)"),
      ("OpenBLAS kernels", BLASRuntime.coreName),
      ("date", Date().formatted(.iso8601)),
    ]
  }

  /// Every key with its default and effect.
  private static var optionTable: String {
    let defaults = RunConfiguration()
    return RunConfiguration.options.map { option in
      let unit = option.unit.isEmpty ? "" : " \(option.unit)"
      return "\(option.key) = \(option.text(defaults))\(unit): \(option.effect)"
    }.joined(separator: "\n")
  }
}
