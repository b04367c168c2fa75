// Folders of a transformer: config.json and weights under the names of its release (diffusers' for
// HunyuanVideo), loaded without conversion and written so that the released code takes them. Parameters of
// ours lie beside them in `conditioning.safetensors`, which others ignore.
//
// Tensors that are no parameters (the position table of Vchitect-2.0) are written, and where they are stored
// compared with their closed form, so that no other table goes unnoticed.

package import Autodiff
import Checkpoints
import DenseKernels
package import Foundation
import Tensors

/// A folder of HunyuanVideo, as diffusers writes it.
package typealias HunyuanVideoFolder = TransformerFolder<HunyuanVideoConfiguration>
/// A folder of Vchitect-2.0, as it was released.
package typealias VchitectFolder = TransformerFolder<VchitectConfiguration>

/// A folder of some transformer, open for reading.
package protocol StoredTransformer {
  associatedtype Configuration: TransformerConfiguration
  var configuration: Configuration { get }
  var url: URL { get }
  /// Tokens of the stored null text; nil if the folder has none.
  var nullTokenCount: Int? { get }

  /// Fills every parameter of the set that the folder holds, from 16-, 32- or 64-bit floats; returns
  /// the names of those that it does not (the null text of a folder that is not ours).
  /// - Throws: `CheckpointError` `wrongModel` for a shape that differs.
  @discardableResult
  func load<Scalar>(into set: ParameterSet<Scalar>) throws -> [String]
}

extension ModelFolder {
  /// Our parameters' file in the folder.
  static let conditioningName = "conditioning.safetensors"
}

extension Architecture {
  /// Opens a folder of whatever architecture its config.json names; without a name it is HunyuanVideo.
  /// - Throws: `ModelError` (`wrongModel`, `invalidConfiguration`), or `CheckpointError` with every
  ///   missing, unexpected and misshapen tensor.
  package static func openFolder(_ url: URL) throws -> any StoredTransformer {
    let folder = try ModelFolder(opening: url)
    switch try folder.className {
    case nil, HunyuanVideoConfiguration.className: return try HunyuanVideoFolder(folder)
    case VchitectConfiguration.className: return try VchitectFolder(folder)
    case .some(let name):
      throw ModelError(
        .wrongModel,
        "\(url.path(percentEncoded: false)) holds a \(name); give the folder of a "
          + "\(HunyuanVideoConfiguration.className) or a \(VchitectConfiguration.className)")
    }
  }
}

/// A folder of a transformer of one architecture, open for reading.
package struct TransformerFolder<Configuration: TransformerConfiguration>: StoredTransformer {
  package let configuration: Configuration
  package var url: URL { folder.url }
  private let folder: ModelFolder
  private let conditioning: SafetensorsReader?

  /// - Throws: `ModelError` (`wrongModel`, `invalidConfiguration`), or `CheckpointError` with every
  ///   missing, unexpected and misshapen tensor.
  package init(opening url: URL) throws {
    try self.init(ModelFolder(opening: url))
  }

  init(_ folder: ModelFolder) throws {
    try folder.requireClass(Configuration.className)
    configuration = try folder.decodeConfiguration(Configuration.self).checked()
    let extra = folder.url.appending(path: ModelFolder.conditioningName)
    let isThere = FileManager.default.fileExists(atPath: extra.path(percentEncoded: false))
    conditioning = isThere ? try SafetensorsReader(opening: extra) : nil
    self.folder = folder
    var shapes = Dictionary(
      uniqueKeysWithValues: configuration.parameterSpecifications.map { ($0.name, $0.shape) })
    let constants = configuration.constantTensors.filter { folder.tensors[$0.name] != nil }
    for constant in constants { shapes[constant.name] = constant.shape }
    try folder.requireTensors(shapes)
    for constant in constants { try require(constant) }
  }

  package var nullTokenCount: Int? {
    conditioning?.tensors.first { $0.name == ConditionedTransformer<Float>.nullTextName }?
      .shape.first
  }

  @discardableResult
  package func load<Scalar>(into set: ParameterSet<Scalar>) throws -> [String] {
    var absent: [String] = []
    try set.overwriteUnits { entries in
      for parameter in set.parameters[entries] {
        if try !load(parameter) { absent.append(parameter.name) }
      }
    }
    return absent
  }

  /// - Returns: whether the folder holds it.
  private func load<Scalar>(_ parameter: Parameter<Scalar>) throws -> Bool {
    let name = parameter.name
    if let stored = folder.tensors[name]?.declaration {
      try require(stored, parameter.shape)
      try parameter.value.fill { try folder.read(name, into: $0) }
      return true
    }
    guard let conditioning, let stored = conditioning.tensors.first(where: { $0.name == name })
    else { return false }
    try require(stored, parameter.shape)
    try parameter.value.fill { try conditioning.read(name, into: $0) }
    return true
  }

  private func require(_ stored: TensorDeclaration, _ shape: [Int]) throws {
    guard stored.shape == shape else {
      throw CheckpointError(
        .wrongModel,
        "\(url.path(percentEncoded: false)): \(stored.name) is \(stored.shape), \(shape) is needed; "
          + "give a folder of the same model")
    }
  }

  private func require(_ constant: ConstantTensor) throws {
    let (stored, expected) = (try folder.floats(constant.name), constant.elements())
    guard
      let index = stored.indices.first(where: {
        !(abs(stored[$0] - expected[$0]) <= constant.tolerance)
      })
    else { return }
    throw ModelError(
      .wrongModel,
      "\(url.path(percentEncoded: false)): element \(index) of \(constant.name) is "
        + "\(stored[index]), with \(constant.dependsOn) it is \(expected[index]); only that table is "
        + "supported")
  }
}
