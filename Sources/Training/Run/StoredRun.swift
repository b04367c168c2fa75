// What a run left behind, opened again by the tools: its configuration, its prepared set, its networks,
// from the final folders or from a checkpoint.

import Autodiff
import Basics
package import Checkpoints
import DenseKernels
package import Foundation
package import Models
package import Tensors
package import VideoData

package struct StoredRun: Sendable {
  package let folder: RunFolder
  /// The checkpoint that was asked for; nil stands for the final weights.
  package let step: URL?

  /// A run by name or folder, or one of its checkpoint folders.
  /// - Throws: `JobError` if there is no such folder.
  package init(_ nameOrFolder: String) throws {
    let isThere = FileManager.default.fileExists(atPath: nameOrFolder + "/.")
    let url =
      isThere
      ? URL(filePath: nameOrFolder, directoryHint: .isDirectory).standardizedFileURL
      : RunFolder(nameOrFolder).url
    guard FileManager.default.fileExists(atPath: url.path) else {
      throw JobError(
        exitCode: .configuration,
        "there is no folder \(url.path); give a run or a checkpoint of it")
    }
    let manifest = url.appending(path: Manifest.fileName).path
    if FileManager.default.fileExists(atPath: manifest) {
      step = url
      folder = RunFolder(
        url.deletingLastPathComponent().deletingLastPathComponent().path + "/")
    } else {
      step = nil
      folder = RunFolder(url.path + "/")
    }
  }

  /// The resolved configuration of the run.
  package func configuration() throws -> RunConfiguration {
    if let step {
      return try ConfigurationReader.read(
        stored: CheckpointReader(opening: step).manifest.fields.configuration)
    }
    guard let yaml = try? String(contentsOf: folder.configuration, encoding: .utf8) else {
      throw JobError(
        exitCode: .configuration,
        "\(folder.url.path) has no config.yaml, so it is no run; check the path")
    }
    return try ConfigurationReader.read(stored: yaml)
  }

  package func prepared() throws -> PreparedSet { try PreparedSet(loading: folder.prepared) }

  /// The text embeddings of the run, if it has any.
  package func texts(
    _ configuration: RunConfiguration, sourceCount: Int, in arena: Arena
  ) throws -> ConditionTexts? {
    guard !configuration.data.text.isEmpty else { return nil }
    return try ConditionTexts(
      reading: URL(filePath: configuration.data.text), sourceCount: sourceCount,
      form: TextForm(
        configuration.transformer, nullTokenCount: configuration.model.textTokens), in: arena)
  }

  /// The network of a role: the final one, or that of the checkpoint.
  /// - Throws: `JobError` where the run does not have it (yet).
  package func network(
    _ role: RunFolder.FinalRole, in arena: Arena
  ) throws -> ConditionedTransformer<Float> {
    require(role != .fake, "the fake DiT is an adapter on the real one")
    if let step { return try CheckpointNetworks(step).network(role, usesAverage: true, in: arena) }
    let url = folder.final(role)
    guard FileManager.default.fileExists(atPath: url.path) else {
      throw JobError(
        exitCode: .configuration,
        "\(folder.url.path) has no final \(role.rawValue) weights yet; let the run finish, or "
          + "give one of its checkpoints/step-… folders")
    }
    let source = try Architecture.openFolder(url)
    let networks = Networks(
      source.configuration, nullTokenCount: source.nullTokenCount ?? 1, arena: arena)
    try source.load(into: networks.base.parameters)
    return networks.base
  }
}

/// The networks in a checkpoint.
package struct CheckpointNetworks {
  package let reader: CheckpointReader
  private let options: RunConfiguration
  private let transformer: any TransformerConfiguration

  package init(_ folder: URL) throws {
    reader = try CheckpointReader(opening: folder)
    options = try ConfigurationReader.read(stored: reader.manifest.fields.configuration)
    transformer =
      options.model.checkpoint.isEmpty
      ? options.transformer
      : try Architecture.openFolder(URL(filePath: options.model.checkpoint)).configuration
  }

  /// Roles that this checkpoint holds.
  package var roles: [RunFolder.FinalRole] {
    RunFolder.FinalRole.allCases.filter { role in
      reader.manifest.tensors.keys.contains { $0.hasPrefix("\(role.rawValue).") }
    }
  }

  /// - Parameter usesAverage: whether the moving average is read where one is stored.
  package func network(
    _ role: RunFolder.FinalRole, usesAverage: Bool, in arena: Arena
  ) throws -> ConditionedTransformer<Float> {
    try require(role)
    let nullText = "\(role.rawValue).\(ConditionedTransformer<Float>.nullTextName)"
    let networks = Networks(
      transformer,
      nullTokenCount: reader.manifest.tensors[nullText]?.shape.first ?? options.model.textTokens,
      arena: arena)
    try read(role, usesAverage: usesAverage, into: networks.base.parameters)
    return networks.base
  }

  /// The fake DiT's adapter.
  package func adapter(in arena: Arena) throws -> AdapterSet<Float> {
    try require(.fake)
    let adapter = AdapterSet<Float>(
      AdapterConfiguration(
        rank: options.distill.loraRank, alpha: options.distill.loraAlpha, of: transformer),
      adapting: transformer.parameterSpecifications, in: arena, role: .fake)
    try read(.fake, usesAverage: false, into: adapter.parameters)
    return adapter
  }

  /// Writes a role as the final folders of a run are written.
  package func export(
    _ role: RunFolder.FinalRole, usesAverage: Bool, to url: URL
  ) throws {
    let arena = Arena()
    if role == .fake {
      try adapter(in: arena).write(to: url)
    } else {
      let network = try network(role, usesAverage: usesAverage, in: arena)
      try network.configuration.write(network.parameters, to: url)
    }
  }

  private func require(_ role: RunFolder.FinalRole) throws {
    guard roles.contains(role) else {
      throw JobError(
        exitCode: .configuration,
        "\(reader.folder.path) holds \(roles.map(\.rawValue).joined(separator: ", ")), no "
          + "\(role.rawValue): it was saved in the \(reader.manifest.fields.phase) phase")
    }
  }

  private func read(
    _ role: RunFolder.FinalRole, usesAverage: Bool, into parameters: ParameterSet<Float>
  ) throws {
    for entry in parameters.layout.entries {
      let name = "\(role.rawValue).\(entry.name)"
      let average = name + ".ema"
      let isAveraged = usesAverage && reader.manifest.tensors[average] != nil
      try reader.read(
        isAveraged ? average : name, elements: 0..<entry.range.count,
        into: parameters.values[entry.range])
    }
  }
}

extension RunConfiguration {
  /// How the prepare phase cuts the videos of this run.
  package var preparationOptions: PreparationOptions {
    var options = PreparationOptions()
    options.clipFrameCount = data.frameCount
    options.cropSize = data.size
    options.shortSide = data.shortSide
    options.proceduralFrames = max(options.proceduralFrames, 2 * data.frameCount)
    options.heldOutShare = data.holdout
    options.proceduralPeople = data.proceduralPeople
    options.proceduralSeed = UInt64(seed)
    options.latentChannels = Self.latentChannelCount
    return options
  }

  /// Where its videos come from.
  package var clipOrigin: ClipOrigin {
    data.paths.isEmpty
      ? .folder(URL(filePath: data.folder)) : .files(data.paths.map { URL(filePath: $0) })
  }
}
