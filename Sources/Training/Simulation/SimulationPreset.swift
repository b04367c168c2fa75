// Cases of the paper's size, for plans of machines that are not there.

import Autodiff
import Models
package import Planning

package enum SimulationPreset: String, CaseIterable, Sendable {
  /// HunyuanVideo (diffusers' sizes) distilled at 544 × 960, 129 frames, by the settings of the specification:
  /// 4 steps, guidance 3.5, a generator's turn in five, adapter of rank 64, samples from noised data,
  /// recomputation, 64 samples a step.
  case hunyuanVideo13B = "hunyuanvideo-13b"

  package var name: String { "HunyuanVideo 13B at 544×960, 129 frames" }

  package var sizes: WorkloadSizes {
    var transformer = HunyuanVideoConfiguration()
    // Noisy latents, and the first frame with its mask.
    transformer.inChannels = 2 * transformer.outChannels + 1
    let textTokenCount = 256
    let specifications = ConditionedTransformer<Float>.specifications(
      of: transformer, nullTokenCount: textTokenCount)
    let adapterRank = 64
    return WorkloadSizes(
      network: NetworkSizes(
        headCount: transformer.attentionHeadCount, headWidth: transformer.attentionHeadWidth,
        mlpWidth: transformer.mlpWidth, doubleBlockCount: transformer.doubleBlockCount,
        singleBlockCount: transformer.singleBlockCount,
        refinerBlockCount: transformer.refinerBlockCount, inChannels: transformer.inChannels,
        outChannels: transformer.outChannels, patchVolume: transformer.patchVolume,
        textTokenCount: textTokenCount, textWidth: transformer.textEmbeddingWidth,
        pooledWidth: transformer.pooledProjectionWidth,
        hasGuidanceEmbedding: transformer.guidanceEmbeds,
        // 129 frames are 1 + 128/4, rows and columns an eighth.
        latentFrames: 33, latentHeight: 68, latentWidth: 120),
      networkUnits: FlatLayout(specifications).plannedUnits,
      adapterUnits: FlatLayout(
        AdapterConfiguration(rank: adapterRank, of: transformer)
          .parameterSpecifications(adapting: specifications)
      ).plannedUnits, adapterRank: adapterRank, headElementCount: 0, discriminatorWidth: 0,
      microbatchCount: 64, samplesPerMicrobatch: 1, recomputedShare: 1, teachStepCount: 0,
      method: .distributionMatching, distillStepCount: 1_000, generatorStepCount: 4,
      simulatesRollout: false, spreadsDepths: false, criticRatio: 5, pullsRealDiT: true,
      isGuided: true,
      hasGroundTruthTerm: false, keepsGeneratorAverage: false, evaluationBatch: 1,
      bucketByteCount: 4 << 20)
  }
}
