// What the readers and writers of all architectures share.

package import Autodiff
import Checkpoints
import DenseKernels
import Foundation
import Tensors

/// A folder of weights being written, parameter by parameter; it appears only when it is whole.
package protocol ModelWriter {
  /// Writes one parameter whole.
  func append(_ parameter: Parameter<Float>) throws

  /// Makes the folder appear.
  /// - Precondition: every parameter was written.
  func finish() throws
}

extension ModelFolder {
  /// `_class_name` in config.json.
  var className: String? {
    get throws {
      struct Kind: Decodable { let _class_name: String? }
      return try decodeConfiguration(Kind.self)._class_name
    }
  }

  /// - Throws: `wrongModel` if config.json names another class; a folder without a name may be any.
  func requireClass(_ className: String) throws {
    guard let name = try self.className, name != className else { return }
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
