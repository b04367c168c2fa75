// The network and the latents that the options describe.

package import Models

extension RunConfiguration {
  /// The network that `model.*` and `data.*` describe: 16 noisy, 16 reference and 1 mask channel in.
  package var transformer: any TransformerConfiguration {
    switch model.architecture {
    case .hunyuanVideo: hunyuanVideo
    case .vchitect: vchitect
    }
  }

  private var hunyuanVideo: HunyuanVideoConfiguration {
    var result = HunyuanVideoConfiguration()
    result.inChannels = 2 * Self.latentChannelCount + 1
    result.outChannels = Self.latentChannelCount
    result.attentionHeadCount = model.heads
    result.attentionHeadWidth = model.headWidth
    result.doubleBlockCount = model.doubleBlocks
    result.singleBlockCount = model.singleBlocks
    result.refinerBlockCount = model.refinerBlocks
    result.mlpRatio = model.mlpRatio
    result.guidanceEmbeds = model.guidanceEmbedding
    result.textEmbeddingWidth = model.textWidth
    result.pooledProjectionWidth = model.pooledWidth
    let width = model.headWidth
    result.ropeAxesWidths = [width / 4, 3 * width / 8, 3 * width / 8]
    return result
  }

  private var vchitect: VchitectConfiguration {
    var result = VchitectConfiguration()
    result.variant = model.variant
    result.spatialGain = model.spatialGain
    result.inChannels = 2 * Self.latentChannelCount + 1
    result.outChannels = Self.latentChannelCount
    result.attentionHeadCount = model.heads
    result.attentionHeadWidth = model.headWidth
    result.blockCount = model.doubleBlocks
    result.textEmbeddingWidth = model.textWidth
    result.pooledProjectionWidth = model.pooledWidth
    // The released class has another default than the width.
    result.captionProjectionWidth = result.width
    return result
  }

  package static let latentChannelCount = 16

  /// Channels, frames, height and width of one latent.
  package var latentShape: [Int] {
    [Self.latentChannelCount, (data.frameCount - 1) / 4 + 1, data.size / 4, data.size / 4]
  }

  /// Video tokens of a sample.
  package var videoTokenCount: Int { latentShape[1] * (latentShape[2] / 2) * (latentShape[3] / 2) }
}
