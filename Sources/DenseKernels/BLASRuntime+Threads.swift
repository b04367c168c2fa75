// How many threads products and attention may use.

import COpenBLAS

extension BLASRuntime {
  /// Lets a product and an attention of Float use `count` threads from now on; no bit depends on it where
  /// our own kernels run. Other loops stay on the calling thread.
  /// - Precondition: `count` is at least 1.
  package static func useThreads(_ count: Int) {
    precondition(count >= 1, "\(count) threads; a product needs at least 1")
    openblas_set_num_threads(Int32(clamping: count))
    KernelThreads.count = count
  }
}
