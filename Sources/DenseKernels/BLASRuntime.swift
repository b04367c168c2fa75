// Which CPU kernels OpenBLAS runs, and how to make it run the right ones.
//
// On a CPU with AVX-512, OpenBLAS may still run Haswell kernels, because it does not know the CPU or
// because the environment says so: half the speed, and products whose bits change when rows are
// split over ranks. It reads OPENBLAS_CORETYPE when the library loads, before any code of ours, so a
// program sets the variable and starts itself again, once, before MPI_Init.

import CKernels
import COpenBLAS
import Foundation

package enum BLASRuntime {
  /// The kernels in use, as OpenBLAS names them: "SkylakeX", "Haswell".
  package static var coreName: String { unsafe String(cString: openblas_get_corename()) }

  /// How OpenBLAS was built: version and options.
  package static var configuration: String { unsafe String(cString: openblas_get_config()) }

  /// OpenBLAS's own threads.
  package static var threadCount: Int { Int(openblas_get_num_threads()) }

  /// Whether CPU and operating system offer AVX-512 F, BW, DQ and VL.
  package static var hasAVX512: Bool { w2svd_has_avx512() != 0 }

  /// What `reexecuteIfNeeded` found when it came back.
  package enum Outcome: Hashable, Sendable {
    /// OpenBLAS picked kernels that fit, or the user chose some.
    case notNeeded
    /// This process is the second start.
    case reexecuted
    /// The program could not start itself again; it goes on with slower kernels.
    case failed(reason: String)
  }

  /// The value of OPENBLAS_CORETYPE that this CPU needs, nil when OpenBLAS chose well.
  ///
  /// - Parameters: what OpenBLAS chose, what the CPU offers, what the user set.
  package static func neededCoreType(coreName: String, hasAVX512: Bool, userChoice: String?)
    -> String?
  {
    guard hasAVX512, userChoice == nil else { return nil }
    let knowsAVX512 = ["skylakex", "cooperlake", "sapphirerapids"].contains(coreName.lowercased())
    return knowsAVX512 ? nil : "SkylakeX"
  }

  /// Starts the program again with the right OpenBLAS kernels and one BLAS thread, if this start
  /// has others; returns when nothing is to be done. Call first thing in `main`, before MPI_Init.
  ///
  /// Keeps the process, its arguments, environment and open files, so a child of mpirun stays one.
  /// - Parameters:
  ///   - arguments: those of the program, its name first.
  ///   - overridesEnvironment: whether an OPENBLAS_CORETYPE that is already set may be replaced.
  package static func reexecuteIfNeeded(
    arguments: [String], overridesEnvironment: Bool = false
  ) -> Outcome {
    let environment = ProcessInfo.processInfo.environment
    if environment["OPENBLAS_NUM_THREADS"] == nil { openblas_set_num_threads(1) }
    if environment[guardVariable] != nil { return .reexecuted }
    guard
      let coreType = neededCoreType(
        coreName: coreName, hasAVX512: hasAVX512,
        userChoice: overridesEnvironment ? nil : environment["OPENBLAS_CORETYPE"])
    else { return .notNeeded }
    unsafe setenv("OPENBLAS_CORETYPE", coreType, 1)
    unsafe setenv("OPENBLAS_NUM_THREADS", "1", 0)
    unsafe setenv(guardVariable, "1", 1)
    var strings = unsafe arguments.map { unsafe strdup($0) } + [nil]
    unsafe execv("/proc/self/exe", &strings)
    let reason = unsafe String(cString: strerror(errno))
    unsafe strings.forEach { unsafe free($0) }
    if let previous = environment["OPENBLAS_CORETYPE"] {
      unsafe setenv("OPENBLAS_CORETYPE", previous, 1)
    } else {
      unsafe unsetenv("OPENBLAS_CORETYPE")
    }
    return .failed(reason: reason)
  }

  private static let guardVariable = "W2SVD_REEXECUTED"
}
