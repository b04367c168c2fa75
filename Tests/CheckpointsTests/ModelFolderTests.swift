import DenseKernels
import Foundation
import TestSupport
import Testing

@testable import Checkpoints

struct ModelFolderTests {
  private struct Configuration: Decodable, Equatable {
    let width: Int
    let axes: [Int]
  }

  private let declarations = [
    TensorDeclaration("b.weight", .float32, shape: [3, 2]),
    TensorDeclaration("a.weight", .bfloat16, shape: [4]),
    TensorDeclaration("a.bias", .float16, shape: []),
  ]

  private func write(
    _ url: URL, layout: ModelFolderLayout = .diffusers, largestShard: Int = 1 << 30,
    shift: Float = 0
  ) throws {
    let writer = try ModelFolderWriter(
      creating: url, layout: layout, configuration: Data(#"{"width": 24, "axes": [4, 6]}"#.utf8),
      tensors: declarations, largestShard: largestShard)
    for tensor in declarations {
      try writer.append((0..<tensor.count).map { Float($0) + shift }, to: tensor.name)
    }
    try writer.finish()
  }

  @Test func `a further file appears with the folder, not before`() throws {
    try withTemporaryFolder { folder in
      let url = folder.appending(path: "model")
      let writer = try ModelFolderWriter(
        creating: url, configuration: Data("{}".utf8),
        tensors: [TensorDeclaration("a", .float32, shape: [1])])
      try writer.append([1], to: "a")
      try Data("words".utf8).write(to: writer.place(of: "further"))
      #expect(!FileManager.default.fileExists(atPath: url.plainPath))
      try writer.finish()
      #expect(try Data(contentsOf: url.appending(path: "further")) == Data("words".utf8))
    }
  }

  @Test func `a sharded folder of the reference implementation opens`() throws {
    let model = try ModelFolder(
      opening: SafetensorsFileTests.fixtures.appending(path: "sharded-model"))
    #expect(
      try model.decodeConfiguration(Configuration.self)
        == Configuration(width: 24, axes: [4, 6, 6]))
    try model.requireTensors(["a.weight": [2, 3], "a.bias": [2], "b.weight": [4, 1]])
    #expect(try model.floats("a.weight") == [0, 1, 2, 3, 4, 5])
    #expect(try model.floats("b.weight") == [0, 1, 2, 3])
    #expect(model.tensors["b.weight"]?.declaration.type == .bfloat16)
    #expect(
      model.tensors["b.weight"]?.file == "diffusion_pytorch_model-00002-of-00002.safetensors")
  }

  @Test(arguments: [1 << 30, 32, 1])
  func `a folder reads back, whole or in shards`(largestShard: Int) throws {
    try withTemporaryFolder { folder in
      let url = folder.appending(path: "model")
      try write(url, largestShard: largestShard)
      let files = try FileManager.default.contentsOfDirectory(atPath: url.plainPath).sorted()
      let shardCount = largestShard == 1 ? 3 : largestShard == 32 ? 2 : 1
      #expect(files.filter { $0.hasSuffix(".safetensors") }.count == shardCount)
      #expect(
        files.contains("diffusion_pytorch_model.safetensors.index.json") == (shardCount > 1))
      let model = try ModelFolder(opening: url)
      #expect(Set(model.tensors.values.map(\.declaration)) == Set(declarations))
      for tensor in declarations {
        #expect(try model.floats(tensor.name) == (0..<tensor.count).map { Float($0) })
      }
      let part = Buffer<Float>(zeroed: 2)
      try model.read("b.weight", elements: 3..<5, into: part)
      #expect(part.array == [3, 4])
    }
  }

  @Test func `writing a folder again replaces it whole`() throws {
    try withTemporaryFolder { folder in
      let url = folder.appending(path: "model")
      try write(url, largestShard: 1)
      try write(url, shift: 8)
      #expect(try ModelFolder(opening: url).floats("a.bias") == [8])
      #expect(try FileManager.default.contentsOfDirectory(atPath: url.plainPath).count == 2)
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder.plainPath) == ["model"])
    }
  }

  @Test func `an adapter folder has PEFT's names`() throws {
    try withTemporaryFolder { folder in
      let url = folder.appending(path: "lora")
      try write(url, layout: .adapter)
      #expect(
        try FileManager.default.contentsOfDirectory(atPath: url.plainPath).sorted()
          == ["adapter_config.json", "adapter_model.safetensors"])
      #expect(try ModelFolder(opening: url, layout: .adapter).floats("a.weight") == [0, 1, 2, 3])
      #expect(throws: CheckpointError.self) { try ModelFolder(opening: url) }
    }
  }

  @Test func `folders that are not models say what is wrong`() throws {
    try withTemporaryFolder { folder in
      func failure(_ body: () throws -> Void) -> CheckpointError? {
        do { try body() } catch { return error as? CheckpointError }
        return nil
      }
      let index = folder.appending(path: "diffusion_pytorch_model.safetensors.index.json")
      #expect(failure { _ = try ModelFolder(opening: folder) }?.code == .notFound)
      try Data("{}".utf8).write(to: folder.appending(path: "config.json"))
      #expect(
        failure { _ = try ModelFolder(opening: folder) }?.message.contains("has neither") == true)
      try Data("{}".utf8).write(to: index)
      #expect(
        failure { _ = try ModelFolder(opening: folder) }?.message.contains("weight_map") == true)
      try Data(#"{"weight_map": {"a": "../x.safetensors"}}"#.utf8).write(to: index)
      #expect(failure { _ = try ModelFolder(opening: folder) }?.code == .damaged)
      try Data(#"{"weight_map": {"a": "x.safetensors", "b": "x.safetensors"}}"#.utf8).write(
        to: index)
      #expect(failure { _ = try ModelFolder(opening: folder) }?.code == .notFound)
      let file = try SafetensorsWriter(
        creating: folder.appending(path: "x.safetensors"),
        tensors: [TensorDeclaration("b", .float32, shape: [0])])
      try file.finish()
      #expect(
        failure { _ = try ModelFolder(opening: folder) }?.message.contains("a (in x.safetensors)")
          == true)
      try Data(#"{"weight_map": {"b": "x.safetensors"}}"#.utf8).write(to: index)
      let model = try ModelFolder(opening: folder)
      #expect(
        failure { _ = try model.decodeConfiguration(Configuration.self) }?.message
          .contains("the key width is missing") == true)
    }
  }
}
