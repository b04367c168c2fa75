// How many threads the kernels of a rank may use.

import COpenBLAS

extension BLASRuntime {
  /// Lets the kernels of Float use `count` threads from now on; no bit depends on it where our own products
  /// run. Sums of whole buffers stay on the calling thread.
  /// - Precondition: `count` is at least 1.
  package static func useThreads(_ count: Int) {
    precondition(count >= 1, "\(count) threads; a product needs at least 1")
    // Where our kernels run, OpenBLAS has only small products, and its threads would spin beside ours.
    openblas_set_num_threads(ProductPrecision.float32.hasKernel ? 1 : Int32(clamping: count))
    KernelThreads.count = count
  }

  /// Threads that a product may use, ours or OpenBLAS's.
  package static var productThreadCount: Int { max(KernelThreads.count, threadCount) }
}
