// Arguments and wiring of the tools; everything they do is in the modules below.
//
// As in the worker, the CPU kernels are chosen first, which may start the program again.

import ArgumentParser
import Checkpoints
import DenseKernels
import Foundation
import Training

_ = BLASRuntime.reexecuteIfNeeded(
  arguments: CommandLine.arguments,
  overridesEnvironment: ProcessInfo.processInfo.environment["W2SVD_OPENBLAS_CORETYPE"] == nil)
FreedMemory.keep()
do {
  var command = try ToolCommand.parseAsRoot()
  try command.run()
} catch {
  exit(Ending(error).printed())
}

/// How the program ends on an error: what it prints, where, and the documented exit code.
private struct Ending {
  private let text: String
  private let exitCode: Int32

  init(_ error: any Error) {
    switch ToolCommand.exitCode(for: error).rawValue {
    case 0:
      text = ToolCommand.fullMessage(for: error) + "\n"
      exitCode = 0
    case EX_USAGE:
      text = ToolCommand.fullMessage(for: error) + "\n"
      exitCode = 2
    default:
      let failure = Self.failure(error)
      text = "w2svd: \(failure.message)\n"
      exitCode = failure.exitCode.rawValue
    }
  }

  /// A file that the user named and that is not there, or is another thing, is theirs to mend.
  private static func failure(_ error: any Error) -> JobError {
    if let error = error as? CheckpointError, [.notFound, .unsupported].contains(error.code) {
      return JobError(exitCode: .configuration, "\(error)")
    }
    return JobError(error)
  }

  func printed() -> Int32 {
    let output = exitCode == 0 ? FileHandle.standardOutput : FileHandle.standardError
    output.write(Data(text.utf8))
    return exitCode
  }
}
