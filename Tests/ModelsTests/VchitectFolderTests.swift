import Autodiff
import Checkpoints
import DenseKernels
import Foundation
import Models
import Tensors
import TestSupport
import Testing

struct VchitectFolderTests {
  private static let source = VchitectExample<Float>.folder("v2")

  /// Opens a copy of a folder whose config.json and tensors were changed.
  private func open(
    _ folder: URL, replacing old: String = "", with new: String = "",
    tensors change: (inout [String: (shape: [Int], values: [Float])]) -> Void = { _ in }
  ) throws {
    let weights = "diffusion_pytorch_model.safetensors"
    let stored = try SafetensorsReader(opening: Self.source.appending(path: weights))
    var tensors: [String: (shape: [Int], values: [Float])] = [:]
    for tensor in stored.tensors {
      tensors[tensor.name] = (tensor.shape, try stored.floats(tensor.name))
    }
    change(&tensors)
    let names = tensors.keys.sorted()
    let copy = folder.appending(path: UUID().uuidString)
    try FileManager.default.createDirectory(at: copy, withIntermediateDirectories: true)
    let writer = try SafetensorsWriter(
      creating: copy.appending(path: weights),
      tensors: names.map { TensorDeclaration($0, .float32, shape: tensors[$0]?.shape ?? []) })
    for name in names { try writer.append(Buffer(tensors[name]?.values ?? []), to: name) }
    try writer.finish()
    let text = try String(contentsOf: Self.source.appending(path: "config.json"), encoding: .utf8)
    try text.replacing(old, with: new)
      .write(to: copy.appending(path: "config.json"), atomically: true, encoding: .utf8)
    let _ = try VchitectFolder(opening: copy)
  }

  @Test func `every stored weight comes in under its name`() throws {
    let folder = try VchitectFolder(opening: Self.source)
    let set = ParameterSet<Float>(
      folder.configuration.parameterSpecifications, in: Arena(), role: .base)
    set.values.fill(with: .nan)
    try folder.load(into: set)
    let stored = try SafetensorsReader(
      opening: Self.source.appending(path: "diffusion_pytorch_model.safetensors"))
    #expect(stored.tensors.count == set.parameters.count + 1)
    for parameter in set.parameters {
      #expect(parameter.value.array == (try stored.floats(parameter.name)), "\(parameter.name)")
    }
    #expect(folder.configuration.spatialGain == 1.1)
  }

  @Test(arguments: ["v1", "v2"])
  func `a written folder has the released names, our parameters beside it, and loads bit by bit`(
    name: String
  ) throws {
    try withTemporaryFolder { folder in
      let source = try VchitectFolder(opening: VchitectExample<Float>.folder(name))
      let specifications = ConditionedTransformer<Float>.specifications(
        of: source.configuration, nullTokenCount: 3)
      let set = ParameterSet<Float>(specifications, in: Arena(), role: .generator)
      set.initialize(seed: 2)
      #expect(
        try source.load(into: set) == ["conditioning.null_text", "conditioning.null_pooled"])
      let copy = folder.appending(path: "copy")
      try source.configuration.write(set, to: copy)

      let file = "diffusion_pytorch_model.safetensors"
      let (stored, written) = (
        try SafetensorsReader(opening: source.url.appending(path: file)),
        try SafetensorsReader(opening: copy.appending(path: file))
      )
      #expect(Set(written.tensors.map(\.name)) == Set(stored.tensors.map(\.name)))
      #expect(written.tensors.map(\.name).contains("pos_embed.pos_embed"))
      let reopened = try Architecture.openFolder(copy)
      #expect(reopened.configuration as? VchitectConfiguration == source.configuration)
      #expect(reopened.nullTokenCount == 3)
      let again = ParameterSet<Float>(specifications, in: Arena(), role: .generator)
      #expect(try reopened.load(into: again) == [])
      #expect(again.values.array == set.values.array)
    }
  }

  @Test func `the architecture of a folder is what its configuration names`() throws {
    let names: [(URL, Architecture)] = [
      (Self.source, .vchitect), (Fixture.root.appending(path: "masks"), .hunyuanVideo),
    ]
    for (folder, architecture) in names {
      let configuration: any TransformerConfiguration =
        try Architecture.openFolder(folder).configuration
      #expect(configuration.architecture == architecture)
    }
    try withTemporaryFolder { folder in
      let copy = folder.appending(path: "copy")
      try FileManager.default.copyItem(at: Self.source, to: copy)
      let path = copy.appending(path: "config.json")
      try String(contentsOf: path, encoding: .utf8)
        .replacing(VchitectConfiguration.className, with: "CogVideoXTransformer3DModel")
        .write(to: path, atomically: true, encoding: .utf8)
      let error = #expect(throws: ModelError.self) { let _ = try Architecture.openFolder(copy) }
      #expect(error?.code == .wrongModel)
      for name in ["CogVideoX", "HunyuanVideoTransformer3DModel", "VchitectXLTransformerModel"] {
        #expect(error?.message.contains(name) == true)
      }
    }
  }

  @Test func `missing, unexpected and misshapen tensors are all named`() throws {
    try withTemporaryFolder { folder in
      try open(folder)
      let error = #expect(throws: CheckpointError.self) {
        try open(folder) { tensors in
          tensors["transformer_blocks.0.attn.to_q_temp.weight"] = nil
          tensors["vid_token"] = ([2], [0, 0])
          tensors["proj_out.bias"] = ([3], [0, 0, 0])
          tensors["pos_embed.pos_embed"]?.shape = [36, 1, 12]
        }
      }
      #expect(error?.code == .wrongModel)
      for name in [
        "transformer_blocks.0.attn.to_q_temp.weight", "vid_token", "proj_out.bias",
        "pos_embed.pos_embed",
      ] {
        #expect(error?.message.contains(name) == true, "\(name)")
      }
    }
  }

  @Test func `a position table may be left out or be rounded, and may not be another`() throws {
    try withTemporaryFolder { folder in
      try open(folder) { $0["pos_embed.pos_embed"] = nil }
      try open(folder) { tensors in
        let table = tensors["pos_embed.pos_embed"]?.values ?? []
        tensors["pos_embed.pos_embed"]?.values = table.map { ($0 * 256).rounded() / 256 }
      }
      let error = #expect(throws: ModelError.self) {
        try open(folder, replacing: #""sample_size": 10"#, with: #""sample_size": 12"#)
      }
      #expect(error?.code == .wrongModel)
      #expect(error?.message.contains("pos_embed.pos_embed") == true)
    }
  }

  @Test func `a folder of another model or with a bad configuration is refused`() throws {
    try withTemporaryFolder { folder in
      let invalid = #expect(throws: ModelError.self) {
        try open(folder, replacing: #""rope_theta": 1000000.0"#, with: #""rope_theta": 0"#)
      }
      #expect(invalid?.code == .invalidConfiguration)
      let stranger = #expect(throws: ModelError.self) {
        try open(
          folder, replacing: VchitectConfiguration.className, with: "SD3Transformer2DModel")
      }
      #expect(stranger?.code == .wrongModel)
      #expect(stranger?.message.contains("SD3Transformer2DModel") == true)
    }
  }
}
