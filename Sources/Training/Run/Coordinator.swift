// Decides which rank holds what, before anything is allocated. This version knows one placement: all
// ranks hold W, adapter and generator, and a shard of the optimizer state and averages of each.

import Autodiff
import Checkpoints
import Diffusion
import Exchange
import Foundation
package import MeshLayout
import Models
package import Planning

/// What the coordinator decided; the same on every rank.
package struct RunPlan: Codable, Sendable {
  package let shape: MeshShape
  /// Why this layout.
  package let reason: String
  package let costs: RunCosts
  /// The budget that the plan was held against, in bytes.
  package let memoryPerRank: Int?
  /// Measured products in GFLOP/s per rank, for the times.
  package let gigaflopsPerRank: Double?

  /// Whether every rank keeps within the budget.
  package var fits: Bool { memoryPerRank.map { costs.peakByteCountPerRank <= $0 } ?? true }
}

package enum Coordinator {
  /// The placement of a run over `rankCount` ranks, and what it costs. Reads at most the headers of
  /// the model folder and the text file that the configuration names.
  ///
  /// - Parameters:
  ///   - memoryPerRank: bytes that a rank may take; the plan says whether they suffice.
  ///   - gigaflopsPerRank: measured rate of products; without it the plan tells no times.
  /// - Throws: `ConfigurationError` where that folder or file cannot be read or does not fit;
  ///   `MeshLayoutError`, which `configuration.validate(rankCount:)` tells as a problem.
  package static func plan(
    _ configuration: RunConfiguration, rankCount: Int, memoryPerRank: Int? = nil,
    gigaflopsPerRank: Double? = nil
  ) throws -> RunPlan {
    let reason =
      rankCount == 1
      ? "one rank holds everything"
      : "colocated: every rank holds all weights and 1/\(rankCount) of the optimizer state and "
        + "averages; gradients are reduced to their owners"
    let costs = try CostModel.costs(of: WorkloadSizes(configuration), rankCount: rankCount)
    return RunPlan(
      shape: MeshShape([.zero: rankCount]), reason: reason, costs: costs,
      memoryPerRank: memoryPerRank, gigaflopsPerRank: gigaflopsPerRank)
  }
}

extension WorkloadSizes {
  /// The sizes of a run. Nothing of the network is allocated.
  /// - Throws: `ConfigurationError` where the model folder or the text file cannot be read or does
  ///   not fit.
  package init(_ configuration: RunConfiguration) throws {
    let folder =
      configuration.model.checkpoint.isEmpty ? nil : try configuration.openModelFolder()
    let transformer = folder?.configuration ?? configuration.transformer
    let file = configuration.data.text
    let text = try blaming("data.text") {
      file.isEmpty
        ? nil
        : try ConditionTexts.Sizes(
          of: SafetensorsReader(opening: URL(filePath: file)), sourceCount: nil,
          textWidth: transformer.textEmbeddingWidth,
          pooledWidth: transformer.pooledProjectionWidth)
    }
    self.init(
      configuration, transformer: transformer,
      nullTokenCount: folder?.nullTokenCount ?? configuration.model.textTokens, text: text)
  }

  private init(
    _ configuration: RunConfiguration, transformer: HunyuanVideoConfiguration,
    nullTokenCount: Int, text: ConditionTexts.Sizes?
  ) {
    let specifications = ConditionedTransformer<Float>.specifications(
      of: transformer, nullTokenCount: nullTokenCount)
    let latents = configuration.latentShape
    let distill = configuration.distill
    let hasHead = distill.lambdaAdversarial > 0
    let method: Method =
      switch distill.method {
      case .w2s, .dmd2: .distributionMatching
      case .lcm: .consistency
      case .euler: .none
      }
    self.init(
      network: NetworkSizes(
        headCount: transformer.attentionHeadCount, headWidth: transformer.attentionHeadWidth,
        mlpWidth: transformer.mlpWidth, doubleBlockCount: transformer.doubleBlockCount,
        singleBlockCount: transformer.singleBlockCount,
        refinerBlockCount: transformer.refinerBlockCount, inChannels: transformer.inChannels,
        outChannels: transformer.outChannels, patchVolume: transformer.patchVolume,
        textTokenCount: max(nullTokenCount, text?.tokenCount ?? 0),
        textWidth: transformer.textEmbeddingWidth, pooledWidth: transformer.pooledProjectionWidth,
        hasGuidanceEmbedding: transformer.guidanceEmbeds, latentFrames: latents[1],
        latentHeight: latents[2], latentWidth: latents[3]),
      networkElementCount: FlatLayout(specifications).count,
      adapterElementCount: FlatLayout(
        AdapterConfiguration(rank: distill.loraRank, of: transformer)
          .parameterSpecifications(adapting: specifications)
      ).count, adapterRank: distill.loraRank,
      headElementCount: hasHead
        ? FlatLayout(
          DiscriminatorHead<Float>.specifications(
            featureWidth: transformer.width, hiddenWidth: distill.discriminatorWidth)
        ).count : 0, discriminatorWidth: distill.discriminatorWidth,
      storedTextElementCounts: text?.elementCounts ?? [],
      microbatchCount: configuration.batch.microbatches,
      samplesPerMicrobatch: configuration.batch.samples,
      recomputes: configuration.model.recompute, teachStepCount: configuration.teach.steps,
      method: method, distillStepCount: distill.steps, generatorStepCount: distill.generatorSteps,
      simulatesRollout: distill.rollout == .simulate, criticRatio: distill.criticRatio,
      pullsRealDiT: distill.method == .w2s && distill.alphaWeak != 0,
      isGuided: distill.guidance != 1, hasGroundTruthTerm: distill.lambdaGroundTruth > 0,
      keepsGeneratorAverage: distill.ema > 0, evaluationBatch: configuration.evaluate.batch,
      bucketByteCount: configuration.exchange.bucketByteCount)
  }
}
