// Text conditions from a safetensors file of embeddings, named as diffusers' forward arguments.

import Checkpoints
package import Foundation
package import Models
package import Tensors

/// What a network takes of a text.
package struct TextForm {
  package let textWidth: Int
  package let pooledWidth: Int
  /// Tokens of every text, for a network that has no mask and sees all of them; nil: any number.
  package let tokenCount: Int?

  package init(_ transformer: any TransformerConfiguration, nullTokenCount: Int) {
    textWidth = transformer.textEmbeddingWidth
    pooledWidth = transformer.pooledProjectionWidth
    tokenCount = transformer.takesTextMask ? nil : nullTokenCount
  }
}

/// One text for all videos, or one for each.
///
/// For a network without a text mask they are as long as the null text: shorter ones end with zeros, which
/// also take the place of tokens that the file's mask hides, so that padding has one meaning whatever an
/// encoder puts there. Longer ones are refused.
package struct ConditionTexts {
  private let texts: [TextCondition<Float>]

  /// How many texts a file holds and how large they are, from its header.
  struct Sizes {
    let count: Int
    /// Of a text in the file.
    let storedTokenCount: Int
    /// Of a text as it is held.
    let tokenCount: Int
    private let form: TextForm

    /// Elements of each held tensor, text by text.
    var elementCounts: [Int] {
      (0..<count).flatMap { _ in [tokenCount * form.textWidth, form.pooledWidth] }
    }

    /// - Parameter sourceCount: the number of videos; nil where it is not known yet.
    /// - Throws: `ConfigurationError` that says what does not fit; `CheckpointError` of the file.
    init(of reader: SafetensorsReader, sourceCount: Int?, form: TextForm) throws {
      let (textWidth, pooledWidth) = (form.textWidth, form.pooledWidth)
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
      (count, storedTokenCount) = (embeddings[0], embeddings[1])
      tokenCount = form.tokenCount ?? storedTokenCount
      if storedTokenCount > tokenCount {
        throw ConditionTexts.problem(
          "\(reader.path) has texts of \(storedTokenCount) tokens, but this model, which has no text mask, "
            + "takes texts of \(tokenCount), as many as its null text: set model.textTokens to at least "
            + "\(storedTokenCount), where model.checkpoint brings no null text, or give shorter texts"
        )
      }
      if reader.tensors.contains(where: { $0.name == ConditionTexts.maskName }) {
        let mask = try reader.declaration(of: ConditionTexts.maskName).shape
        guard mask == [count, storedTokenCount] else {
          throw ConditionTexts.problem(
            "\(reader.path) has \(ConditionTexts.maskName) \(mask); wanted is "
              + "\([count, storedTokenCount]), as encoder_hidden_states")
        }
      }
      self.form = form
    }
  }

  /// Reads `encoder_hidden_states` [N, T, E], `pooled_projections` [N, P] and, optionally,
  /// `encoder_attention_mask` [N, T]; N is 1 or the number of videos.
  /// - Throws: `ConfigurationError` that says what does not fit; `CheckpointError` of the file.
  package init(
    reading file: URL, sourceCount: Int, form: TextForm, in arena: Arena
  ) throws {
    let reader = try SafetensorsReader(opening: file)
    let sizes = try Sizes(of: reader, sourceCount: sourceCount, form: form)
    let (textWidth, pooledWidth) = (form.textWidth, form.pooledWidth)
    let (count, tokens) = (sizes.count, sizes.storedTokenCount)
    let values = try reader.floats("encoder_hidden_states")
    let pooledValues = try reader.floats("pooled_projections")
    let mask = try Self.mask(in: reader, sizes)
    let booking = Booking(.common, .parameters)
    texts = (0..<count).map { index in
      var embeddings = Array(
        values[(index * tokens * textWidth)..<((index + 1) * tokens * textWidth)])
      var ownMask = mask.map { Array($0[(index * tokens)..<((index + 1) * tokens)]) }
      if form.tokenCount != nil {
        for (token, isVisible) in (ownMask ?? []).enumerated() where isVisible == 0 {
          for element in 0..<textWidth { embeddings[token * textWidth + element] = 0 }
        }
        embeddings += Array(repeating: 0, count: (sizes.tokenCount - tokens) * textWidth)
        ownMask = nil
      }
      return TextCondition(
        embeddings: Tensor(
          embeddings, shape: [sizes.tokenCount, textWidth], in: arena, booking: booking),
        mask: ownMask,
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
    where
      !mask[(text * sizes.storedTokenCount)..<((text + 1) * sizes.storedTokenCount)].contains(1)
    {
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
