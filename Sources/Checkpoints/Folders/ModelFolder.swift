// A model as Hugging Face's libraries store it: a JSON configuration beside one safetensors file, or
// several with an index that says which tensor is where.
//
// Source: diffusers `ModelMixin.save_pretrained` (stem `diffusion_pytorch_model`), transformers (stem
// `model`), PEFT (`adapter_config.json`, stem `adapter_model`).

package import DenseKernels
package import Foundation

/// The file names of one library's folders.
package struct ModelFolderLayout: Sendable, Equatable {
  package let configurationName: String
  package let stem: String

  package static let diffusers = Self(
    configurationName: "config.json", stem: "diffusion_pytorch_model")
  package static let transformers = Self(configurationName: "config.json", stem: "model")
  package static let adapter = Self(
    configurationName: "adapter_config.json", stem: "adapter_model")

  var singleFileName: String { "\(stem).safetensors" }
  var indexName: String { "\(stem).safetensors.index.json" }

  func shardName(_ index: Int, of count: Int) -> String {
    count == 1
      ? singleFileName
      : "\(stem)-\(zeroPadded(index + 1, 5))-of-\(zeroPadded(count, 5)).safetensors"
  }
}

/// The index of a sharded folder; what else stands in it (sizes) is not needed to read.
private struct ShardIndex: Decodable {
  let fileOfTensor: [String: String]

  private enum CodingKeys: String, CodingKey {
    case fileOfTensor = "weight_map"
  }
}

/// A model folder open for reading: a catalogue of name → file, type and shape.
package final class ModelFolder: Sendable {
  package struct Tensor: Sendable, Equatable {
    package let declaration: TensorDeclaration
    package let file: String
  }

  package let url: URL
  /// The configuration as it stands in the file.
  package let configuration: Data
  package let tensors: [String: Tensor]
  private let configurationPath: String
  private let files: [String: SafetensorsReader]

  /// Opens a folder of `layout`; for diffusers one of transformers' naming does as well.
  /// - Throws: `notFound`, `damaged`, `unsupported`, `inputOutput`.
  package init(opening url: URL, layout: ModelFolderLayout = .diffusers) throws {
    let configurationURL = url.appending(path: layout.configurationName)
    self.url = url
    self.configurationPath = configurationURL.plainPath
    self.configuration = Data(try readWhole(configurationURL))
    (files, tensors) = try Self.catalogue(of: url, layout)
  }

  /// - Throws: `damaged` with the key that is missing or mistyped.
  package func decodeConfiguration<Value: Decodable>(_ type: Value.Type) throws -> Value {
    do { return try JSONDecoder().decode(type, from: configuration) } catch {
      throw CheckpointError(
        .damaged, "\(configurationPath) cannot be understood: \(Self.reason(error))", cause: error)
    }
  }

  /// Compares names and shapes with those of the model that wants to load.
  /// - Throws: `wrongModel` with every missing, unexpected and misshapen tensor.
  package func requireTensors(_ expected: [String: [Int]], allowingOthers: Bool = false) throws {
    try checkNames(
      of: tensors.mapValues(\.declaration.shape), against: expected,
      allowingOthers: allowingOthers, source: url.plainPath)
  }

  /// Reads elements of a tensor (all of them by default), converted to Float32.
  package func read(
    _ name: String, elements: Range<Int>? = nil, into target: Buffer<Float>
  ) throws {
    try reader(of: name).read(name, elements: elements, into: target)
  }

  /// A whole tensor converted to Float32.
  package func floats(_ name: String) throws -> [Float] { try reader(of: name).floats(name) }

  private func reader(of name: String) throws -> SafetensorsReader {
    guard let tensor = tensors[name], let reader = files[tensor.file] else {
      throw CheckpointError(.notFound, "\(url.plainPath) has no tensor \(name)")
    }
    return reader
  }

  private static func catalogue(of url: URL, _ layout: ModelFolderLayout) throws -> (
    [String: SafetensorsReader], [String: Tensor]
  ) {
    let layouts = layout == .diffusers ? [layout, .transformers] : [layout]
    for layout in layouts {
      if isThere(layout.indexName, in: url) { return try sharded(url, layout) }
      if isThere(layout.singleFileName, in: url) {
        let reader = try SafetensorsReader(opening: url.appending(path: layout.singleFileName))
        let pairs = reader.tensors.map {
          ($0.name, Tensor(declaration: $0, file: layout.singleFileName))
        }
        return ([layout.singleFileName: reader], Dictionary(uniqueKeysWithValues: pairs))
      }
    }
    throw CheckpointError(
      .notFound,
      "\(url.plainPath) has neither \(layout.singleFileName) nor \(layout.indexName); give the "
        + "folder that holds \(layout.configurationName) and the weights as safetensors")
  }

  private static func sharded(_ url: URL, _ layout: ModelFolderLayout) throws -> (
    [String: SafetensorsReader], [String: Tensor]
  ) {
    let indexURL = url.appending(path: layout.indexName)
    let index: ShardIndex
    do {
      index = try JSONDecoder().decode(ShardIndex.self, from: Data(try readWhole(indexURL)))
    } catch let error as DecodingError {
      throw CheckpointError(
        .damaged, "\(indexURL.plainPath) is not an index: \(reason(error))", cause: error)
    }
    var readers: [String: SafetensorsReader] = [:]
    for file in Set(index.fileOfTensor.values).sorted() {
      guard !file.contains("/"), file != "..", file != "." else {
        throw CheckpointError(
          .damaged, "\(indexURL.plainPath) names \(file), which is not a file beside it")
      }
      readers[file] = try SafetensorsReader(opening: url.appending(path: file))
    }
    let held = readers.mapValues { reader in
      Dictionary(uniqueKeysWithValues: reader.tensors.map { ($0.name, $0) })
    }
    var tensors: [String: Tensor] = [:]
    var missing: [String] = []
    for (name, file) in index.fileOfTensor {
      if let declaration = held[file]?[name] {
        tensors[name] = Tensor(declaration: declaration, file: file)
      } else {
        missing.append("\(name) (in \(file))")
      }
    }
    guard missing.isEmpty else {
      throw CheckpointError(
        .damaged,
        "\(indexURL.plainPath) lists tensors that its files lack; download the folder again: "
          + missing.sorted().joined(separator: ", "))
    }
    return (readers, tensors)
  }

  private static func isThere(_ name: String, in folder: URL) -> Bool {
    FileManager.default.fileExists(atPath: folder.appending(path: name).plainPath)
  }

  private static func reason(_ error: any Error) -> String {
    switch error as? DecodingError {
    case .keyNotFound(let key, _): "the key \(key.stringValue) is missing"
    case .typeMismatch(let type, let context):
      "\(context.codingPath.map(\.stringValue).joined(separator: ".")) is not a \(type)"
    case .valueNotFound(_, let context):
      "\(context.codingPath.map(\.stringValue).joined(separator: ".")) is null"
    default: "it is not JSON"
    }
  }
}
