// HunyuanVideo's diffusion transformer: double-stream blocks over video and text, then single-stream
// blocks over both, modulated by time, pooled text and guidance.
//
// Goals, ranked: 1 agreement with diffusers, 2 memory, 3 speed.
// Source: HunyuanVideo (2412.03603) §4.2; diffusers, `transformer_hunyuan_video.py`.
// Letters: B samples, C channels, F frames, H rows, W columns of latents; L video tokens, T text tokens,
// D width, E text width, P pooled width.

package import Autodiff
import Basics
package import DenseKernels
import Tensors

/// Runs the transformer over a set of parameters. It holds no state of a run: several of them, or
/// several tapes, may share one set.
package final class HunyuanVideoTransformer<Scalar: KernelScalar> {
  package let configuration: HunyuanVideoConfiguration
  package let parameters: ParameterSet<Scalar>
  /// Calls in a row have the same grid.
  private var latestRotation: (sizes: [Int], table: RotaryTable<Scalar>)?

  /// - Precondition: the set holds every parameter of the configuration, in its shape; it may hold more.
  package init(
    _ configuration: HunyuanVideoConfiguration, parameters: ParameterSet<Scalar>
  ) {
    parameters.require(configuration.parameterSpecifications)
    self.configuration = configuration
    self.parameters = parameters
  }

  /// The predicted velocity.
  ///
  /// Frames, rows and columns that fill no patch are left out of the result, as diffusers does.
  /// - Shapes: hidden states [B, C, F, H, W] → [B, Cout, F, H, W].
  /// - Parameters:
  ///   - recomputedShare: share of the blocks, evenly spread, that store only their inputs and run again in
  ///     `backward`.
  ///   - sequence: runs the blocks on a part of the tokens; inputs and result are whole.
  /// - Precondition: `inputs.problems(for: configuration)` is empty.
  package func forward(
    tape: Tape<Scalar>, _ inputs: TransformerInputs<Scalar>, adapter: Adapter<Scalar>? = nil,
    recomputedShare: Double = 0, sequence: (any SequenceParallel<Scalar>)? = nil
  ) -> Value<Scalar> {
    let scope = LayerScope(tape, parameters, adapter: adapter, tensor: sequence?.tensor)
    let stem = stem(scope, inputs, sequence: sequence)
    var (video, text) = runDoubleBlocks(scope, stem, recomputedShare: recomputedShare)
    if configuration.singleBlockCount > 0 {
      var joint = tape.concatenate([video, text], along: 1)  // [B, L+T, D]
      for index in 0..<configuration.singleBlockCount {
        let name = "single_transformer_blocks.\(index)"
        let block = SingleStreamBlock(scope: scope(name), stem: stem)
        joint =
          scope.run(
            name, [joint, stem.condition],
            recompute: isInEvenShare(
              configuration.doubleBlockCount + index, share: recomputedShare)
          ) { tape, inputs in
            [block.forward(tape, joint: inputs[0], condition: inputs[1])]
          }[0]
      }
      video = tape.slice(joint, along: 1, 0..<video.shape[1])
    }
    return project(scope, video, stem)
  }

  /// Video tokens after the last double block; the rest of the network is not run.
  /// - Shapes: → [B, L, D].
  /// - Source: the W2SVD figure's tap for the discriminator.
  package func features(
    tape: Tape<Scalar>, _ inputs: TransformerInputs<Scalar>, adapter: Adapter<Scalar>? = nil,
    recomputedShare: Double = 0
  ) -> Value<Scalar> {
    let scope = LayerScope(tape, parameters, adapter: adapter)
    return runDoubleBlocks(
      scope, stem(scope, inputs, sequence: nil), recomputedShare: recomputedShare
    ).video
  }

  // MARK: Parts

  private func stem(
    _ scope: LayerScope<Scalar>, _ inputs: TransformerInputs<Scalar>,
    sequence: (any SequenceParallel<Scalar>)?
  ) -> TransformerStem<Scalar> {
    let problems = inputs.problems(for: configuration)
    precondition(problems.isEmpty, problems.joined(separator: "; "))
    let tape = scope.tape
    let grid = PatchGrid(
      latents: inputs.hiddenStates.shape,
      patch: [
        configuration.temporalPatchSize, configuration.patchSize, configuration.patchSize,
      ])
    let condition = scope("time_text_embed").conditionEmbedding(
      timestep: inputs.timestep, pooled: inputs.pooledProjections, guidance: inputs.guidance)
    let text = TokenRefiner(configuration: configuration)
      .forward(scope("context_embedder"), inputs)
    func own(_ tokens: Value<Scalar>) -> Value<Scalar> {
      guard let sequence else { return tokens }
      return tape.slice(tokens, along: 1, sequence.ownRange(of: tokens.shape[1]))
    }
    let patches = own(grid.patches(of: inputs.hiddenStates, on: tape))
    let rotation = rotation(of: grid)
    let tensor = scope.tensor
    // Queries and keys are those of own tokens, or of the group's.
    let rotated =
      tensor?.groupRange(of: grid.tokenCount) ?? sequence?.ownRange(of: grid.tokenCount)
    return TransformerStem(
      grid: grid, video: scope.linear("x_embedder.proj", patches), text: own(text),
      condition: tape.apply(.silu, to: condition),
      rotation: rotated.map { rotation.tokens($0) } ?? rotation,
      attention: JointAttention(
        headCount: configuration.attentionHeadCount / (tensor?.degree ?? 1),
        mask: inputs.jointMask(videoCount: grid.tokenCount),
        segments: [grid.tokenCount, inputs.textCount], sequence: sequence))
  }

  private func rotation(of grid: PatchGrid) -> RotaryTable<Scalar> {
    if let latestRotation, latestRotation.sizes == grid.sizes { return latestRotation.table }
    let table = RotaryTable<Scalar>(
      gridSizes: grid.sizes, axisWidths: configuration.ropeAxesWidths,
      theta: configuration.ropeTheta)
    latestRotation = (grid.sizes, table)
    return table
  }

  private func runDoubleBlocks(
    _ scope: LayerScope<Scalar>, _ stem: TransformerStem<Scalar>,
    recomputedShare: Double
  ) -> (video: Value<Scalar>, text: Value<Scalar>) {
    var streams = [stem.video, stem.text]
    for index in 0..<configuration.doubleBlockCount {
      let name = "transformer_blocks.\(index)"
      let block = DoubleStreamBlock(scope: scope(name), stem: stem)
      streams = scope.run(
        name, streams + [stem.condition],
        recompute: isInEvenShare(index, share: recomputedShare)
      ) { tape, inputs in
        block.forward(tape, video: inputs[0], text: inputs[1], condition: inputs[2])
      }
    }
    return (streams[0], streams[1])
  }

  /// Modulation, projection, and patches back in place.
  private func project(
    _ scope: LayerScope<Scalar>, _ video: Value<Scalar>, _ stem: TransformerStem<Scalar>
  ) -> Value<Scalar> {
    let normalized = scope.modulatedLayerNorm(
      "norm_out.linear", video, condition: stem.condition,
      epsilon: HunyuanVideoConfiguration.epsilon)
    let patches = scope.linear("proj_out", normalized)
    let whole =
      stem.attention.sequence?.gatherTokens(
        patches, tokenCount: stem.grid.tokenCount, on: scope.tape) ?? patches
    return stem.grid.latents(of: whole, on: scope.tape)
  }
}

/// What all blocks share.
struct TransformerStem<Scalar: KernelScalar> {
  let grid: PatchGrid
  /// [B, L, D], own tokens where the sequence is cut.
  let video: Value<Scalar>
  /// [B, T, D], own tokens where the sequence is cut.
  let text: Value<Scalar>
  /// SiLU of the embedded time, text and guidance: [B, D].
  let condition: Value<Scalar>
  let rotation: RotaryTable<Scalar>
  let attention: JointAttention<Scalar>
  /// Video and text tokens of a sample, all parts together.
  var segments: [Int] { attention.segments }
}
