// Arguments and wiring of the worker; everything it does is in Training.
//
// Order matters: the CPU kernels are chosen (and the process image replaced) before MPI starts,
// because OpenBLAS reads its environment when it is loaded.

import ArgumentParser
import DenseKernels
import Foundation

if case .failed(let reason) = BLASRuntime.reexecuteIfNeeded(
  arguments: CommandLine.arguments,
  overridesEnvironment: ProcessInfo.processInfo.environment["W2SVD_OPENBLAS_CORETYPE"] == nil)
{
  FileHandle.standardError.write(
    Data("warning: slow OpenBLAS kernels stay in use: \(reason)\n".utf8))
}
WorkerCommand.main()
