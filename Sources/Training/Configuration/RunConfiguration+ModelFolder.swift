// A run that starts from a Hugging Face folder: the folder says how large the model is.

import Foundation
package import Models

extension RunConfiguration {
  /// Replaces the sizes of `model.*` by those of the folder that `model.checkpoint` names, if it
  /// names one, so that plan, resolved configuration and checkpoints tell the truth.
  /// - Throws: `ConfigurationError` at `model.checkpoint`.
  package mutating func adoptModelFolder() throws {
    guard !model.checkpoint.isEmpty else { return }
    let source = try openModelFolder()
    let sizes = source.configuration
    model.heads = sizes.attentionHeadCount
    model.headWidth = sizes.attentionHeadWidth
    model.doubleBlocks = sizes.doubleBlockCount
    model.singleBlocks = sizes.singleBlockCount
    model.refinerBlocks = sizes.refinerBlockCount
    model.mlpRatio = sizes.mlpRatio
    model.textTokens = source.nullTokenCount ?? model.textTokens
    model.textWidth = sizes.textEmbeddingWidth
    model.pooledWidth = sizes.pooledProjectionWidth
    model.guidanceEmbedding = sizes.guidanceEmbeds
    guard distill.loraRank <= sizes.width else {
      throw ConfigurationError([
        ConfigurationProblem(
          "distill.loraRank",
          "must be at most the width \(sizes.width) of \(model.checkpoint), found "
            + "\(distill.loraRank)")
      ])
    }
  }

  /// The folder that `model.checkpoint` names.
  /// - Throws: `ConfigurationError` for a bad folder, or one whose model takes other latents.
  package func openModelFolder() throws -> HunyuanVideoFolder {
    let source = try blaming("model.checkpoint") {
      try HunyuanVideoFolder(opening: URL(filePath: model.checkpoint))
    }
    let (found, wanted) = (source.configuration, transformer)
    let facts = [
      ("in_channels", found.inChannels, wanted.inChannels),
      ("out_channels", found.outChannels, wanted.outChannels),
      ("patch_size", found.patchSize, wanted.patchSize),
      ("patch_size_t", found.temporalPatchSize, wanted.temporalPatchSize),
    ]
    let problems = facts.filter { $0.1 != $0.2 }.map { name, found, wanted in
      ConfigurationProblem(
        "model.checkpoint",
        "\(model.checkpoint) has \(name) \(found), this program needs \(wanted) (16 noisy and 16 "
          + "reference channels and a mask, patches of 1 × 2 × 2): give a folder of such a model")
    }
    guard problems.isEmpty else { throw ConfigurationError(problems) }
    return source
  }
}
