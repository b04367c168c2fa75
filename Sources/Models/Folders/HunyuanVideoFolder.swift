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
    for parameter in set.parameters {
      let (name, shape) = (parameter.name, parameter.value.shape)
      if let stored = folder.tensors[name]?.declaration {
        try require(stored, shape)
        try parameter.value.fill { try folder.read(name, into: $0) }
      } else if let conditioning,
        let stored = conditioning.tensors.first(where: { $0.name == name })
      {
        try require(stored, shape)
        try parameter.value.fill { try conditioning.read(name, into: $0) }
      } else {
        absent.append(name)
      }
    }
    return absent
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
    let specifications = parameterSpecifications
    let writer = try ModelFolderWriter(
      creating: url, configuration: folderConfiguration(),
      tensors: specifications.map { TensorDeclaration($0.name, type, shape: $0.shape) },
      largestShard: largestShard)
    for specification in specifications {
      try writer.append(set[specification.name].value.buffer, to: specification.name)
    }
    let theirs = Set(specifications.map(\.name))
    let ours = set.parameters.filter { !theirs.contains($0.name) }
    if !ours.isEmpty {
      do {
        let extra = try SafetensorsWriter(
          creating: writer.place(of: HunyuanVideoFolder.conditioningName),
          tensors: ours.map { TensorDeclaration($0.name, .float32, shape: $0.value.shape) },
          metadata: ["format": "pt"])
        for parameter in ours { try extra.append(parameter.value.buffer, to: parameter.name) }
        try extra.finish()
      } catch {
        writer.abandon()
        throw error
      }
    }
    try writer.finish()
  }
}
