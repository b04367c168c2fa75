// Arguments and wiring of the worker; everything it does is in Training.
//
// Order matters: the CPU kernels are chosen (and the process image replaced) before MPI starts,
// because OpenBLAS reads its environment when it is loaded.

import ArgumentParser
import DenseKernels
import Foundation
import Training

if case .failed(let reason) = BLASRuntime.reexecuteIfNeeded(
  arguments: CommandLine.arguments,
  overridesEnvironment: ProcessInfo.processInfo.environment["W2SVD_OPENBLAS_CORETYPE"] == nil)
{
  FileHandle.standardError.write(
    Data("warning: slow OpenBLAS kernels stay in use: \(reason)\n".utf8))
}

FreedMemory.keep()

// A signal in the seconds that MPI takes to start must not end the rank.
StopSignal.install()

do {
  var command = try WorkerCommand.parseAsRoot()
  try command.run()
} catch {
  // Before MPI, so every rank is here with the same words: one says them.
  let environment = ProcessInfo.processInfo.environment
  let rank = environment["OMPI_COMM_WORLD_RANK"] ?? environment["PMIX_RANK"] ?? "0"
  let isRequest = WorkerCommand.exitCode(for: error).isSuccess
  if rank == "0" {
    let text = Data((WorkerCommand.fullMessage(for: error) + "\n").utf8)
    (isRequest ? FileHandle.standardOutput : .standardError).write(text)
  }
  exit(isRequest ? ExitCode.done.rawValue : ExitCode.configuration.rawValue)
}
