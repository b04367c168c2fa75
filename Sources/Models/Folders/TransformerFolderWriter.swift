// Writes the folders that `TransformerFolder` reads.

package import Autodiff
package import Checkpoints
import DenseKernels
package import Foundation
import Tensors

extension TransformerConfiguration {
  /// The text of config.json.
  package func folderConfiguration() throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return try encoder.encode(NamedConfiguration(configuration: self))
  }

  /// Writes a folder that the released code loads; it appears only when it is whole.
  /// - Parameters:
  ///   - type: of the stored weights; F32 (default) is exact.
  ///   - largestShard: bytes of one file.
  /// - Precondition: the set holds every parameter of the configuration.
  package func write(
    _ set: ParameterSet<Float>, to url: URL, as type: StoredType = .float32,
    largestShard: Int = ModelFolderWriter.defaultLargestShard
  ) throws {
    let writer = try TransformerFolderWriter(
      creating: url, self, parameters: set.specifications, as: type, largestShard: largestShard)
    try set.readUnits { entries in
      for parameter in set.parameters[entries] { try writer.append(parameter) }
    }
    try writer.finish()
  }
}

/// The keys of config.json with the class that libraries look for.
private struct NamedConfiguration<Configuration: TransformerConfiguration>: Encodable {
  let configuration: Configuration

  enum ClassKeys: String, CodingKey { case className = "_class_name" }

  func encode(to encoder: any Encoder) throws {
    try configuration.encode(to: encoder)
    var keys = encoder.container(keyedBy: ClassKeys.self)
    try keys.encode(Configuration.className, forKey: .className)
  }
}

/// A folder being written, parameter by parameter; it appears only when it is whole.
package final class TransformerFolderWriter: ModelWriter {
  private let writer: ModelFolderWriter
  private let constants: [ConstantTensor]
  private let ours: SafetensorsWriter?
  private let ourNames: Set<String>

  /// - Parameter parameters: all that will be written; those that are not the transformer's go into a
  ///   file of their own.
  package init(
    creating url: URL, _ configuration: any TransformerConfiguration,
    parameters: [ParameterSpecification], as type: StoredType = .float32,
    largestShard: Int = ModelFolderWriter.defaultLargestShard
  ) throws {
    let theirs = configuration.parameterSpecifications
    let theirNames = Set(theirs.map(\.name))
    let rest = parameters.filter { !theirNames.contains($0.name) }
    let constants = configuration.constantTensors
    let writer = try ModelFolderWriter(
      creating: url, configuration: configuration.folderConfiguration(),
      tensors: theirs.map { TensorDeclaration($0.name, type, shape: $0.shape) }
        + constants.map { TensorDeclaration($0.name, type, shape: $0.shape) },
      largestShard: largestShard)
    self.writer = writer
    self.constants = constants
    ourNames = Set(rest.map(\.name))
    do {
      ours =
        rest.isEmpty
        ? nil
        : try SafetensorsWriter(
          creating: writer.place(of: ModelFolder.conditioningName),
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
    for constant in constants {
      try writer.append(Buffer(constant.elements()), to: constant.name)
    }
    try writer.finish()
  }
}
