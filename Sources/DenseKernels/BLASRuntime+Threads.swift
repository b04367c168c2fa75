// How many threads one product may use.

import COpenBLAS

extension BLASRuntime {
  /// Lets OpenBLAS use `count` threads in a product from now on.
  ///
  /// Only Float32 products know threads; attention's tiles are such products too. The loops of
  /// CKernels and bfloat16 products run on the calling thread whatever is set here.
  /// - Precondition: `count` is at least 1.
  package static func useThreads(_ count: Int) {
    precondition(count >= 1, "\(count) threads; a product needs at least 1")
    openblas_set_num_threads(Int32(clamping: count))
  }
}
