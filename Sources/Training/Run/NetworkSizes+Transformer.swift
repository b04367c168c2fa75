// The sizes of a transformer as the planner wants them.

package import Models
package import Planning

extension NetworkSizes {
  /// - Parameters:
  ///   - latentShape: channels, frames, height and width of one latent.
  ///   - sequencePlan: what is exchanged where tokens are shared.
  package init(
    _ transformer: any TransformerConfiguration, textTokenCount: Int, latentShape: [Int],
    sequencePlan: SequencePlan
  ) {
    let form: NetworkForm
    let counts: (double: Int, single: Int, refiner: Int)
    switch transformer.blockStructure {
    case .doubleAndSingleStream(let double, let single, let refiner):
      form = .doubleAndSingleStream
      counts = (double, single, refiner)
    case .multimodal(let count, let variant, let spatialGain):
      form = .multimodal(
        MultimodalForm(
          hasOwnProjections: variant == .v2, hasUnitGain: spatialGain == 1,
          exchangesAllBranches: sequencePlan == .all))
      counts = (count, 0, 0)
    }
    self.init(
      headCount: transformer.attentionHeadCount, headWidth: transformer.attentionHeadWidth,
      mlpWidth: transformer.mlpWidth, form: form, doubleBlockCount: counts.double,
      singleBlockCount: counts.single, refinerBlockCount: counts.refiner,
      inChannels: transformer.inChannels, outChannels: transformer.outChannels,
      patchVolume: transformer.patchVolume, textTokenCount: textTokenCount,
      textWidth: transformer.textEmbeddingWidth, pooledWidth: transformer.pooledProjectionWidth,
      hasGuidanceEmbedding: transformer.guidanceEmbeds, latentFrames: latentShape[1],
      latentHeight: latentShape[2], latentWidth: latentShape[3])
  }
}
