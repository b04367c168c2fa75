// Text conditions from a safetensors file of embeddings, named as diffusers' forward arguments.

import Checkpoints
package import Foundation
package import Models
package import Tensors

/// One text for all videos, or one for each.
package struct ConditionTexts {
  private let texts: [TextCondition<Float>]

  /// How many texts a file holds and how large they are, from its header.
  struct Sizes {
    let count: Int
    let tokenCount: Int
    let textWidth: Int
    let pooledWidth: Int

    /// Elements of each stored tensor, text by text.
    var elementCounts: [Int] {
      (0..<count).flatMap { _ in [tokenCount * textWidth, pooledWidth] }
    }

    /// - Parameter sourceCount: the number of videos; nil where it is not known yet.
    /// - Throws: `ConfigurationError` that says what does not fit; `CheckpointError` of the file.
    init(
      of reader: SafetensorsReader, sourceCount: Int?, textWidth: Int, pooledWidth: Int
    ) throws {
      let embeddings = try reader.declaration(of: "encoder_hidden_states").shape
      let pooled = try reader.declaration(of: "pooled_projections").shape
      guard
        embeddings.count == 3, pooled.count == 2, embeddings[0] == pooled[0],
        embeddings[0] == 1 || embeddings[0] == sourceCount ?? embeddings[0],
        embeddings[2] == textWidth, pooled[1] == pooledWidth, embeddings[0] > 0, embeddings[1] > 0
      else {
        let count = sourceCount.map { "1 or \($0)" } ?? "1 or the number of videos"
        throw ConditionTexts.problem(
          "\(reader.path) has encoder_hidden_states \(embeddings) and pooled_projections "
            + "\(pooled); wanted are [N, T, \(textWidth)] and [N, \(pooledWidth)] with N \(count)")
      }
      (count, tokenCount) = (embeddings[0], embeddings[1])
      if reader.tensors.contains(where: { $0.name == ConditionTexts.maskName }) {
        let mask = try reader.declaration(of: ConditionTexts.maskName).shape
        guard mask == [count, tokenCount] else {
          throw ConditionTexts.problem(
            "\(reader.path) has \(ConditionTexts.maskName) \(mask); wanted is \([count, tokenCount]), "
              + "as encoder_hidden_states")
        }
      }
      (self.textWidth, self.pooledWidth) = (textWidth, pooledWidth)
    }
  }

  /// Reads `encoder_hidden_states` [N, T, E], `pooled_projections` [N, P] and, optionally,
  /// `encoder_attention_mask` [N, T]; N is 1 or the number of videos.
  /// - Throws: `ConfigurationError` that says what does not fit; `CheckpointError` of the file.
  package init(
    reading file: URL, sourceCount: Int, textWidth: Int, pooledWidth: Int, in arena: Arena
  ) throws {
    let reader = try SafetensorsReader(opening: file)
    let sizes = try Sizes(
      of: reader, sourceCount: sourceCount, textWidth: textWidth, pooledWidth: pooledWidth)
    let (count, tokens) = (sizes.count, sizes.tokenCount)
    let values = try reader.floats("encoder_hidden_states")
    let pooledValues = try reader.floats("pooled_projections")
    let mask = try Self.mask(in: reader, sizes)
    let booking = Booking(.common, .parameters)
    texts = (0..<count).map { index in
      TextCondition(
        embeddings: Tensor(
          Array(values[(index * tokens * textWidth)..<((index + 1) * tokens * textWidth)]),
          shape: [tokens, textWidth], in: arena, booking: booking),
        mask: mask.map { Array($0[(index * tokens)..<((index + 1) * tokens)]) },
        pooled: Tensor(
          Array(pooledValues[(index * pooledWidth)..<((index + 1) * pooledWidth)]),
          shape: [pooledWidth], in: arena, booking: booking))
    }
  }

  private static let maskName = "encoder_attention_mask"

  /// Ones and zeros, token by token; nil where the file has no mask.
  private static func mask(in reader: SafetensorsReader, _ sizes: Sizes) throws -> [UInt8]? {
    guard reader.tensors.contains(where: { $0.name == maskName }) else { return nil }
    let mask = try reader.numbers(maskName).map { UInt8($0 != 0 ? 1 : 0) }
    for text in 0..<sizes.count
    where !mask[(text * sizes.tokenCount)..<((text + 1) * sizes.tokenCount)].contains(1) {
      throw problem(
        "\(reader.path): row \(text) of \(maskName) has no valid token; a text needs at least one")
    }
    return mask
  }

  private static func problem(_ text: String) -> ConfigurationError {
    ConfigurationError([ConfigurationProblem("data.text", text)])
  }

  package subscript(source index: Int) -> TextCondition<Float> {
    texts[texts.count == 1 ? 0 : index]
  }
}
