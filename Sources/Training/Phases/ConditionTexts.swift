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
        throw ConfigurationError([
          ConfigurationProblem(
            "data.text",
            "\(reader.path) has encoder_hidden_states \(embeddings) and pooled_projections "
              + "\(pooled); wanted are [N, T, \(textWidth)] and [N, \(pooledWidth)] with N \(count)"
          )
        ])
      }
      (count, tokenCount) = (embeddings[0], embeddings[1])
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
    let hasMask = reader.tensors.contains { $0.name == "encoder_attention_mask" }
    let mask = hasMask ? try reader.floats("encoder_attention_mask") : []
    let booking = Booking(.common, .parameters)
    texts = (0..<count).map { index in
      TextCondition(
        embeddings: Tensor(
          Array(values[(index * tokens * textWidth)..<((index + 1) * tokens * textWidth)]),
          shape: [tokens, textWidth], in: arena, booking: booking),
        mask: hasMask
          ? mask[(index * tokens)..<((index + 1) * tokens)].map { $0 != 0 ? 1 : 0 } : nil,
        pooled: Tensor(
          Array(pooledValues[(index * pooledWidth)..<((index + 1) * pooledWidth)]),
          shape: [pooledWidth], in: arena, booking: booking))
    }
  }

  package subscript(source index: Int) -> TextCondition<Float> {
    texts[texts.count == 1 ? 0 : index]
  }
}
