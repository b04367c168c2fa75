import Autodiff
import Checkpoints
import DenseKernels
import Foundation
import Models
import Tensors
import TestSupport
import Testing

struct HunyuanVideoFolderTests {
  func values(_ name: String) throws -> [Float] {
    let folder = try HunyuanVideoFolder(opening: Fixture.root.appending(path: name))
    let set = ParameterSet<Float>(
      folder.configuration.parameterSpecifications, in: Arena(), role: .base)
    #expect(try folder.load(into: set) == [])
    return set.values.array
  }

  @Test func `one file in bfloat16, several in Float32 and one in float16 hold the same model`()
    throws
  {
    let expected = try values("no-blocks")
    #expect(expected.contains { $0 != 0 })
    #expect(try values("sharded") == expected)
    // Float16 has more digits than bfloat16 but a smaller range: exact down to 2⁻²⁴.
    #expect(difference(try values("float16"), expected, absolute: 0x1p-24) == nil)
  }

  @Test(arguments: [Int.max, 20_000])
  func `a written folder loads bit by bit, with our parameters beside it`(largestShard: Int) throws
  {
    try withTemporaryFolder { folder in
      let source = try HunyuanVideoFolder(opening: Fixture.root.appending(path: "no-blocks"))
      let specifications = ConditionedTransformer<Float>.specifications(
        of: source.configuration, nullTokenCount: 3)
      let set = ParameterSet<Float>(specifications, in: Arena(), role: .generator)
      set.initialize(seed: 2)
      #expect(
        try source.load(into: set) == ["conditioning.null_text", "conditioning.null_pooled"])
      #expect(source.nullTokenCount == nil)

      let copy = folder.appending(path: "copy")
      try source.configuration.write(set, to: copy, largestShard: largestShard)
      let reopened = try HunyuanVideoFolder(opening: copy)
      #expect(reopened.configuration == source.configuration)
      #expect(reopened.nullTokenCount == 3)
      let again = ParameterSet<Float>(specifications, in: Arena(), role: .generator)
      #expect(try reopened.load(into: again) == [])
      #expect(again.values.array == set.values.array)
    }
  }

  @Test func `a folder of another model says what differs`() throws {
    try withTemporaryFolder { folder in
      let copy = folder.appending(path: "copy")
      try FileManager.default.copyItem(at: Fixture.root.appending(path: "no-blocks"), to: copy)
      let path = copy.appending(path: "config.json")
      let text = try String(contentsOf: path, encoding: .utf8)

      try text.replacing(#""num_layers": 0"#, with: #""num_layers": 1"#)
        .write(to: path, atomically: true, encoding: .utf8)
      let missing = #expect(throws: CheckpointError.self) {
        let _ = try HunyuanVideoFolder(opening: copy)
      }
      #expect(missing?.message.contains("transformer_blocks.0.attn.to_q.weight") == true)

      try text.replacing(#""attention_head_dim": 12"#, with: #""attention_head_dim": 14"#)
        .write(to: path, atomically: true, encoding: .utf8)
      let invalid = #expect(throws: ModelError.self) {
        let _ = try HunyuanVideoFolder(opening: copy)
      }
      #expect(invalid?.code == .invalidConfiguration)

      try text.replacing("HunyuanVideoTransformer3DModel", with: "FluxTransformer2DModel")
        .write(to: path, atomically: true, encoding: .utf8)
      let stranger = #expect(throws: ModelError.self) {
        let _ = try HunyuanVideoFolder(opening: copy)
      }
      #expect(stranger?.code == .wrongModel)
    }
  }
}
