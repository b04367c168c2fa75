// HunyuanVideo folders: config.json and weights under diffusers' names, loaded without conversion and
// written so that `HunyuanVideoTransformer3DModel.from_pretrained` takes them. Parameters of ours lie
// beside them in `conditioning.safetensors`, which diffusers ignores.

package import Autodiff
package import Checkpoints
package import DenseKernels
package import Foundation
import Tensors

/// A diffusers folder of a HunyuanVideo transformer, open for reading.
package struct HunyuanVideoFolder {
  /// Our parameters' file in the folder.
  package static let conditioningName = "conditioning.safetensors"

  package let configuration: HunyuanVideoConfiguration
  package let url: URL
  private let folder: ModelFolder
  private let conditioning: SafetensorsReader?

  /// - Throws: `ModelError` (`wrongModel`, `invalidConfiguration`) or `CheckpointError`.
  package init(opening url: URL) throws {
    let folder = try ModelFolder(opening: url)
    try folder.requireClass(HunyuanVideoConfiguration.className)
    configuration = try folder.decodeConfiguration(HunyuanVideoConfiguration.self).checked()
    let extra = url.appending(path: Self.conditioningName)
    let isThere = FileManager.default.fileExists(atPath: extra.path(percentEncoded: false))
    conditioning = isThere ? try SafetensorsReader(opening: extra) : nil
    self.folder = folder
    self.url = url
    try folder.requireTensors(
      Dictionary(
        uniqueKeysWithValues: configuration.parameterSpecifications.map { ($0.name, $0.shape) }))
  }

  /// Tokens of the stored null text; nil if the folder has none.
  package var nullTokenCount: Int? {
    conditioning?.tensors.first { $0.name == ConditionedTransformer<Float>.nullTextName }?
      .shape.first
  }

  /// Fills every parameter of the set that the folder holds, from 16-, 32- or 64-bit floats; returns
  /// the names of those that it does not (the null text of a plain diffusers folder).
  /// - Throws: `CheckpointError` `wrongModel` for a shape that differs.
  @discardableResult
  package func load<Scalar: KernelScalar>(into set: ParameterSet<Scalar>) throws -> [String] {
    var absent: [String] = []
    try set.overwriteUnits { entries in
      for parameter in set.parameters[entries] {
        if try !load(parameter) { absent.append(parameter.name) }
      }
    }
    return absent
  }

  /// - Returns: whether the folder holds it.
  private func load<Scalar: KernelScalar>(_ parameter: Parameter<Scalar>) throws -> Bool {
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
}

extension HunyuanVideoConfiguration {
  /// The text of config.json.
  package func folderConfiguration() throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return try encoder.encode(Stored(configuration: self))
  }

  /// The keys of config.json with the class that diffusers looks for.
  private struct Stored: Encodable {
    let configuration: HunyuanVideoConfiguration

    enum ClassKeys: String, CodingKey { case className = "_class_name" }

    func encode(to encoder: any Encoder) throws {
      try configuration.encode(to: encoder)
      var keys = encoder.container(keyedBy: ClassKeys.self)
      try keys.encode(HunyuanVideoConfiguration.className, forKey: .className)
    }
  }

  /// Writes a folder that diffusers loads; it appears only when it is whole.
  /// - Parameters:
  ///   - type: of the stored weights; F32 (default) is exact.
  ///   - largestShard: bytes of one file.
  /// - Precondition: the set holds every parameter of the configuration.
  package func write(
    _ set: ParameterSet<Float>, to url: URL, as type: StoredType = .float32,
    largestShard: Int = ModelFolderWriter.defaultLargestShard
  ) throws {
    let writer = try HunyuanVideoFolderWriter(
      creating: url, self, parameters: set.specifications, as: type, largestShard: largestShard)
    try set.readUnits { entries in
      for parameter in set.parameters[entries] { try writer.append(parameter) }
    }
    try writer.finish()
  }
}

/// A diffusers folder being written, parameter by parameter; it appears only when it is whole.
package final class HunyuanVideoFolderWriter: ModelWriter {
  private let writer: ModelFolderWriter
  private let ours: SafetensorsWriter?
  private let ourNames: Set<String>

  /// - Parameter parameters: all that will be written; those that are not the transformer's go into a
  ///   file of their own.
  package init(
    creating url: URL, _ configuration: HunyuanVideoConfiguration,
    parameters: [ParameterSpecification], as type: StoredType = .float32,
    largestShard: Int = ModelFolderWriter.defaultLargestShard
  ) throws {
    let theirs = configuration.parameterSpecifications
    let theirNames = Set(theirs.map(\.name))
    let rest = parameters.filter { !theirNames.contains($0.name) }
    let writer = try ModelFolderWriter(
      creating: url, configuration: configuration.folderConfiguration(),
      tensors: theirs.map { TensorDeclaration($0.name, type, shape: $0.shape) },
      largestShard: largestShard)
    self.writer = writer
    ourNames = Set(rest.map(\.name))
    do {
      ours =
        rest.isEmpty
        ? nil
        : try SafetensorsWriter(
          creating: writer.place(of: HunyuanVideoFolder.conditioningName),
          tensors: rest.map { TensorDeclaration($0.name, .float32, shape: $0.shape) },
          metadata: ["format": "pt"])
    } catch {
      writer.abandon()
      throw error
    }
  }

  /// Writes one parameter whole.
  package func append(_ parameter: Parameter<Float>) throws {
    guard ourNames.contains(parameter.name) else {
      return try writer.append(parameter.value.buffer, to: parameter.name)
    }
    do { try ours?.append(parameter.value.buffer, to: parameter.name) } catch {
      writer.abandon()
      throw error
    }
  }

  /// Makes the folder appear.
  /// - Precondition: every parameter was written.
  package func finish() throws {
    do { try ours?.finish() } catch {
      writer.abandon()
      throw error
    }
    try writer.finish()
  }
}
