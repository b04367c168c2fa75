// What the released code calls the arguments of forward, checked against a configuration.

package import Autodiff
package import DenseKernels

/// One batch of inputs. All clips have one size, all texts one length and no mask.
package struct VchitectInputs<Scalar: KernelScalar> {
  /// Latents [B, C, F, H, W].
  package var hiddenStates: Value<Scalar>
  /// 1000·σ per clip.
  package var timestep: [Double]
  /// Text tokens [B, T, E], T at least 1.
  package var encoderHiddenStates: Value<Scalar>
  /// [B, P].
  package var pooledProjections: Value<Scalar>

  package init(
    hiddenStates: Value<Scalar>, timestep: [Double], encoderHiddenStates: Value<Scalar>,
    pooledProjections: Value<Scalar>
  ) {
    self.hiddenStates = hiddenStates
    self.timestep = timestep
    self.encoderHiddenStates = encoderHiddenStates
    self.pooledProjections = pooledProjections
  }

  /// The inputs of any transformer, of which this one takes neither mask nor guidance.
  init(_ inputs: consuming TransformerInputs<Scalar>) {
    self.init(
      hiddenStates: inputs.hiddenStates, timestep: inputs.timestep,
      encoderHiddenStates: inputs.encoderHiddenStates,
      pooledProjections: inputs.pooledProjections)
  }

  /// What does not fit, each with the name of the argument.
  package func problems(for configuration: VchitectConfiguration) -> [String] {
    var problems: [String] = []
    let latents = hiddenStates.shape
    let largest = configuration.positionTableSize * configuration.patchSize
    if latents.count != 5 || latents[1] != configuration.inChannels {
      problems.append(
        "hidden_states is \(latents), it must be [B, \(configuration.inChannels), F, H, W]")
    } else if latents[0] < 1 || latents[2] < 1 || latents[3] < configuration.patchSize
      || latents[4] < configuration.patchSize
    {
      problems.append("hidden_states is \(latents), it holds not one patch")
    } else if max(latents[3], latents[4]) >= largest + configuration.patchSize {
      problems.append(
        "hidden_states is \(latents), positions reach no further than \(largest) rows and columns "
          + "(pos_embed_max_size \(configuration.positionTableSize))")
    }
    let batch = latents.first ?? 0
    if timestep.count != batch {
      problems.append("timestep has \(timestep.count) elements for \(batch) clips")
    }
    let text = encoderHiddenStates.shape
    if text.count != 3 || text[0] != batch || text[1] < 1
      || text[2] != configuration.textEmbeddingWidth
    {
      problems.append(
        "encoder_hidden_states is \(text), it must be "
          + "[\(batch), T, \(configuration.textEmbeddingWidth)]")
    }
    if pooledProjections.shape != [batch, configuration.pooledProjectionWidth] {
      problems.append(
        "pooled_projections is \(pooledProjections.shape), it must be "
          + "[\(batch), \(configuration.pooledProjectionWidth)]")
    }
    return problems
  }
}
