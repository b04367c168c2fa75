// What the readers of all architectures share.

import Checkpoints
import DenseKernels
import Foundation
import Tensors

extension ModelFolder {
  /// - Throws: `wrongModel` if config.json names another class; a folder without a name may be any.
  func requireClass(_ className: String) throws {
    struct Kind: Decodable { let _class_name: String? }
    guard let name = try decodeConfiguration(Kind.self)._class_name, name != className else {
      return
    }
    throw ModelError(
      .wrongModel,
      "\(url.path(percentEncoded: false)) holds a \(name); give the folder of a \(className)")
  }
}

extension Tensor {
  /// Fills the tensor from Float32 elements that `read` puts into a buffer; no copy if it is Float32.
  func fill(_ read: (Buffer<Float>) throws -> Void) throws {
    if let buffer = buffer as? Buffer<Float> { return try read(buffer) }
    let floats = Buffer<Float>(zeroed: count)
    try read(floats)
    for index in 0..<count { buffer[index] = Scalar(floats[index]) }
  }
}
