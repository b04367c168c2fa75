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
    let sizes: any TransformerConfiguration = source.configuration
    model.architecture = sizes.architecture
    model.heads = sizes.attentionHeadCount
    model.headWidth = sizes.attentionHeadWidth
    switch sizes.blockStructure {
    case .doubleAndSingleStream(let double, let single, let refiner):
      (model.doubleBlocks, model.singleBlocks, model.refinerBlocks) = (double, single, refiner)
    case .multimodal(let count, let variant, let spatialGain):
      (model.doubleBlocks, model.variant, model.spatialGain) = (count, variant, spatialGain)
    }
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
  package func openModelFolder() throws -> any StoredTransformer {
    let source = try blaming("model.checkpoint") {
      try Architecture.openFolder(URL(filePath: model.checkpoint))
    }
    let found: any TransformerConfiguration = source.configuration
    // Of any sizes: those of `model.*` are not looked at where a folder brings its own.
    let wanted = RunConfiguration().transformer
    let facts = [
      ("in_channels", found.inChannels, wanted.inChannels),
      ("out_channels", found.outChannels, wanted.outChannels),
      ("patch_size", found.patch[1], wanted.patch[1]),
      ("patch_size_t", found.patch[0], wanted.patch[0]),
    ]
    var problems = facts.filter { $0.1 != $0.2 }.map { name, found, wanted in
      ConfigurationProblem(
        "model.checkpoint",
        "\(model.checkpoint) has \(name) \(found), this program needs \(wanted) (16 noisy and 16 "
          + "reference channels and a mask, patches of 1 × 2 × 2): give a folder of such a model")
    }
    problems += self.problems(with: found)
    guard problems.isEmpty else { throw ConfigurationError(problems) }
    return source
  }
}
