// What diffusers calls the arguments of forward, checked against a configuration.

package import Autodiff
package import DenseKernels
import Tensors

/// One batch of inputs. All samples have one size.
package struct TransformerInputs<Scalar: KernelScalar> {
  /// Latents [B, C, F, H, W].
  package var hiddenStates: Value<Scalar>
  /// 1000·t per sample.
  package var timestep: [Double]
  /// Text tokens [B, T, E], T at least 1.
  package var encoderHiddenStates: Value<Scalar>
  /// B·T, nonzero for a valid token; each sample has one. The refiner takes any pattern; the blocks
  /// see as many leading tokens as are valid, as in diffusers.
  package var encoderAttentionMask: [UInt8]
  /// [B, P].
  package var pooledProjections: Value<Scalar>
  /// 1000·guidance per sample; nil for a model without guidance embedding.
  package var guidance: [Double]?

  package init(
    hiddenStates: Value<Scalar>, timestep: [Double], encoderHiddenStates: Value<Scalar>,
    encoderAttentionMask: [UInt8], pooledProjections: Value<Scalar>, guidance: [Double]? = nil
  ) {
    self.hiddenStates = hiddenStates
    self.timestep = timestep
    self.encoderHiddenStates = encoderHiddenStates
    self.encoderAttentionMask = encoderAttentionMask
    self.pooledProjections = pooledProjections
    self.guidance = guidance
  }

  var sampleCount: Int { hiddenStates.shape.first ?? 0 }
  var textCount: Int { encoderHiddenStates.shape[1] }

  /// What does not fit, each with the name of the argument.
  package func problems(for configuration: HunyuanVideoConfiguration) -> [String] {
    var problems: [String] = []
    let latents = hiddenStates.shape
    if latents.count != 5 || latents[1] != configuration.inChannels {
      problems.append(
        "hidden_states is \(latents), it must be [B, \(configuration.inChannels), F, H, W]")
    } else if latents[0] < 1
      || configuration.tokenCount(frames: latents[2], height: latents[3], width: latents[4]) < 1
    {
      problems.append("hidden_states is \(latents), it holds not one patch")
    }
    let batch = sampleCount
    if timestep.count != batch {
      problems.append("timestep has \(timestep.count) elements for \(batch) samples")
    }
    let text = encoderHiddenStates.shape
    let textFits =
      text.count == 3 && text[0] == batch && text[1] > 0
      && text[2] == configuration.textEmbeddingWidth
    if !textFits {
      problems.append(
        "encoder_hidden_states is \(text), it must be "
          + "[\(batch), T, \(configuration.textEmbeddingWidth)]")
    } else if encoderAttentionMask.count != text[0] * text[1] {
      problems.append(
        "encoder_attention_mask has \(encoderAttentionMask.count) elements for \(text[0])×\(text[1])"
          + " tokens")
    } else {
      for sample in 0..<batch where validCount(ofSample: sample) == 0 {
        problems.append("encoder_attention_mask leaves sample \(sample) without a text token")
      }
    }
    if pooledProjections.shape != [batch, configuration.pooledProjectionWidth] {
      problems.append(
        "pooled_projections is \(pooledProjections.shape), it must be "
          + "[\(batch), \(configuration.pooledProjectionWidth)]")
    }
    if configuration.guidanceEmbeds {
      if guidance?.count != batch {
        problems.append("guidance has \(guidance?.count ?? 0) elements for \(batch) samples")
      }
    } else if guidance != nil {
      problems.append("guidance is given, but the model has guidance_embeds off; leave it out")
    }
    return problems
  }

  private func mask(ofSample sample: Int) -> ArraySlice<UInt8> {
    encoderAttentionMask[(sample * textCount)..<((sample + 1) * textCount)]
  }

  private func validCount(ofSample sample: Int) -> Int {
    mask(ofSample: sample).count { $0 != 0 }
  }

  /// The refiner's mask: valid tokens see valid tokens and token 0, the others token 0 alone.
  var refinerMask: AttentionMask? {
    guard encoderAttentionMask.contains(0) else { return nil }
    var visible = encoderAttentionMask.map { $0 == 0 ? UInt8(0) : 1 }
    for sample in 0..<sampleCount { visible[sample * textCount] = 1 }
    return AttentionMask(
      visibleKeys: visible, isolatedQueries: encoderAttentionMask.map { $0 == 0 ? 1 : 0 })
  }

  /// The blocks' mask over video and text: all video tokens and the first n of the text, n the count
  /// of valid ones.
  func jointMask(videoCount: Int) -> AttentionMask? {
    guard encoderAttentionMask.contains(0) else { return nil }
    return AttentionMask(
      visibleKeys: (0..<sampleCount).flatMap { sample in
        let visible = videoCount + validCount(ofSample: sample)
        return (0..<(videoCount + textCount)).map { $0 < visible ? UInt8(1) : 0 }
      })
  }

  /// Weights of the mean over a sample's valid text tokens.
  var textMeanWeights: [Scalar] {
    (0..<sampleCount).flatMap { sample in
      let weight = 1 / Scalar(validCount(ofSample: sample))
      return mask(ofSample: sample).map { $0 == 0 ? Scalar(0) : weight }
    }
  }
}
