import Checkpoints
import DenseKernels
import Foundation
import Models
import Tensors
import TestSupport
import Testing

@testable import Training

@Suite struct ConditionTextsTests {
  /// Two texts of three tokens, with a mask of some type and shape.
  private func write(
    mask: [UInt8], _ type: StoredType, shape: [Int] = [2, 3], to file: URL
  ) throws {
    let writer = try SafetensorsWriter(
      creating: file,
      tensors: [
        TensorDeclaration("encoder_hidden_states", .float32, shape: [2, 3, 4]),
        TensorDeclaration("pooled_projections", .float32, shape: [2, 5]),
        TensorDeclaration("encoder_attention_mask", type, shape: shape),
      ])
    try writer.append((0..<24).map { Float($0) }, to: "encoder_hidden_states")
    try writer.append((0..<10).map { Float($0) }, to: "pooled_projections")
    func append(_ elements: Buffer<some BitwiseCopyable>) throws {
      try elements.withBytes { try writer.append(bytes: $0, to: "encoder_attention_mask") }
    }
    switch type {
    case .int64: try append(Buffer(mask.map { Int64($0) }))
    case .int32: try append(Buffer(mask.map { Int32($0) }))
    case .float32: try append(Buffer(mask.map { Float($0) }))
    default: try append(Buffer(mask))
    }
    try writer.finish()
  }

  /// - Parameter length: of all texts, for a network without a text mask.
  private func read(_ file: URL, length: Int? = nil) throws -> ConditionTexts {
    var masked = HunyuanVideoConfiguration()
    var unmasked = VchitectConfiguration()
    (masked.textEmbeddingWidth, masked.pooledProjectionWidth) = (4, 5)
    (unmasked.textEmbeddingWidth, unmasked.pooledProjectionWidth) = (4, 5)
    let transformer: any TransformerConfiguration = length == nil ? masked : unmasked
    return try ConditionTexts(
      reading: file, sourceCount: 2,
      form: TextForm(transformer, nullTokenCount: length ?? 1), in: Arena())
  }

  @Test func `without a text mask texts have one length, and zeros where nothing is to be seen`()
    throws
  {
    try withTemporaryFolder { folder in
      let file = folder.appending(path: "texts.safetensors")
      try write(mask: [1, 1, 0, 1, 0, 1], .int64, to: file)
      let texts = try read(file, length: 5)
      for (source, visible) in [(0, [0, 1]), (1, [0, 2])] {
        #expect(texts[source: source].mask == [1, 1, 1, 1, 1])
        let expected = (0..<5).flatMap { token in
          (0..<4).map { visible.contains(token) ? Float(12 * source + 4 * token + $0) : 0 }
        }
        #expect(texts[source: source].embeddings.shape == [5, 4])
        #expect(texts[source: source].embeddings.array == expected)
      }
      #expect(try read(file, length: 3)[source: 1].embeddings.shape == [3, 4])
      let error = #expect(throws: ConfigurationError.self) { try read(file, length: 2) }
      #expect(error?.description.contains("model.textTokens to at least 3") == true)
    }
  }

  @Test(arguments: [StoredType.int64, .int32, .bool, .uint8, .float32])
  func `masks are read as tokenizers write them`(_ type: StoredType) throws {
    try withTemporaryFolder { folder in
      let file = folder.appending(path: "texts.safetensors")
      try write(mask: [1, 1, 0, 1, 0, 0], type, to: file)
      let texts = try read(file)
      #expect(texts[source: 0].mask == [1, 1, 0])
      #expect(texts[source: 1].mask == [1, 0, 0])
      #expect(texts[source: 1].embeddings.array == (12..<24).map { Float($0) })
    }
  }

  @Test func `a mask of another shape, or a text without a valid token, is refused`() throws {
    try withTemporaryFolder { folder in
      let file = folder.appending(path: "texts.safetensors")
      let cases: [([UInt8], [Int], String)] = [
        ([1, 1, 1, 1], [2, 2], "[2, 2]; wanted is [2, 3]"),
        ([1, 1, 1, 1, 1, 1, 1, 1], [2, 4], "[2, 4]; wanted is [2, 3]"),
        ([1, 1, 1, 1, 1, 1], [6], "[6]; wanted is [2, 3]"),
        ([1, 1, 1, 0, 0, 0], [2, 3], "row 1 of encoder_attention_mask has no valid token"),
      ]
      for (mask, shape, words) in cases {
        try write(mask: mask, .int64, shape: shape, to: file)
        let error = #expect(throws: ConfigurationError.self) { try read(file) }
        #expect(error?.problems.map(\.key) == ["data.text"])
        #expect(error?.description.contains(words) == true, "\(error as Any)")
      }
    }
  }
}
