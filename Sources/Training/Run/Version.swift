// The version that programs print and runs record.

import Compression
import DenseKernels
import Foundation

package enum Version {
  package static let text = "0.1.0"

  /// What a run computes with, by name.
  static var libraries: [String: String] {
    [
      "w2svd": text, "OpenBLAS": BLASRuntime.configuration.trimmingCharacters(in: .whitespaces),
      "OpenBLAS kernels": BLASRuntime.coreName, "zstd": ZstdLibrary.version,
    ]
  }
}
