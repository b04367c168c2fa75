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
  ///   - inputs: gone when the first block begins.
  ///   - recomputedShare: share of the blocks, evenly spread, that store only their inputs and run again in
  ///     `backward`.
  ///   - sequence: runs the blocks on a part of the tokens, or some of the blocks; inputs and result are
  ///     whole.
  /// - Precondition: `inputs.problems(for: configuration)` is empty.
  package func forward(
    tape: Tape<Scalar>, _ inputs: consuming TransformerInputs<Scalar>,
    adapter: Adapter<Scalar>? = nil, recomputedShare: Double = 0,
    sequence: (any SequenceParallel<Scalar>)? = nil
  ) -> Value<Scalar> {
    let stage = sequence?.stage
    let blocks = stage?.blocks(of: blockCount) ?? 0..<blockCount
    let (scope, stem) = place(tape, inputs, adapter, sequence)
    let state = runBlocks(
      blocks, scope, stem, firstState(before: blocks, scope, inputs, stem, stage),
      recomputedShare: recomputedShare)
    if let stage, !stage.isLast {
      return stage.handOn(
        (consume state).taken(), velocityShape: stem.grid.latentShape(configuration.outChannels),
        on: tape)
    }
    let velocity = project(scope, stem, consume state)
    stage?.publish(velocity)
    return velocity
  }

  /// The mean of the video tokens after the last double block; the rest of the network is not run.
  /// - Shapes: → [B, D].
  /// - Source: the W2SVD figure's tap for the discriminator.
  package func features(
    tape: Tape<Scalar>, _ inputs: consuming TransformerInputs<Scalar>,
    adapter: Adapter<Scalar>? = nil, recomputedShare: Double = 0,
    sequence: (any SequenceParallel<Scalar>)? = nil
  ) -> Value<Scalar> {
    let stage = sequence?.stage
    let (scope, stem) = place(tape, inputs, adapter, sequence)
    let shape = [stem.grid.sampleCount, configuration.width]
    func run(
      _ blocks: Range<Int>, _ inputs: consuming TransformerInputs<Scalar>
    ) -> TokenState<Scalar> {
      runBlocks(
        blocks, scope, stem, firstState(before: blocks, scope, inputs, stem, stage),
        recomputedShare: recomputedShare)
    }
    let role = FeaturesRole(
      stage, featureBlockCount: configuration.doubleBlockCount, blockCount: blockCount)
    switch role {
    case .before(let stage, let source, let blocks):
      return stage.handOn(run(blocks, inputs).taken(), featuresShape: shape, of: source, on: tape)
    case .source(let blocks):
      let features = scope.tokenMean(
        run(blocks, inputs).streams[0], sampleCount: shape[0], segment: stem.grid.tokenCount,
        sequence: sequence)
      stage?.publish(features: features)
      return features
    case .behind(let stage, let source):
      return stage.receiveFeatures(shape, of: source, on: tape)
    }
  }

  // MARK: Parts

  private var blockCount: Int { configuration.doubleBlockCount + configuration.singleBlockCount }

  private func place(
    _ tape: Tape<Scalar>, _ inputs: TransformerInputs<Scalar>, _ adapter: Adapter<Scalar>?,
    _ sequence: (any SequenceParallel<Scalar>)?
  ) -> (LayerScope<Scalar>, TransformerStem<Scalar>) {
    let scope = LayerScope(
      tape, parameters, adapter: adapter, tensor: sequence?.tensor,
      extent: sequence?.extent ?? .whole, canonical: sequence?.canonical,
      slices: sequence?.canonical?.sliceCount(
        heads: configuration.attentionHeadCount, hiddenUnits: configuration.mlpWidth))
    return (scope, stem(inputs, tensor: scope.tensor, sequence: sequence?.tokens))
  }

  /// What blocks begin with: from the stage before, or embedded here.
  private func firstState(
    before blocks: Range<Int>, _ scope: LayerScope<Scalar>,
    _ inputs: consuming TransformerInputs<Scalar>, _ stem: TransformerStem<Scalar>,
    _ stage: (any PipelineStage<Scalar>)?
  ) -> TokenState<Scalar> {
    guard let stage, !stage.isFirst else { return embed(scope, inputs, stem) }
    return TokenState(
      stage.receive(
        stem.stateShapes(before: blocks.lowerBound, configuration), on: scope.tape))
  }

  private func stem(
    _ inputs: TransformerInputs<Scalar>, tensor: (any TensorParallel<Scalar>)?,
    sequence: (any SequenceParallel<Scalar>)?
  ) -> TransformerStem<Scalar> {
    let grid = PatchGrid(
      latents: inputs.hiddenStates.shape,
      patch: [
        configuration.temporalPatchSize, configuration.patchSize, configuration.patchSize,
      ])
    let rotation = rotation(of: grid)
    // Queries and keys are those of own tokens, or of the group's.
    let rotated =
      tensor?.groupRange(of: grid.tokenCount) ?? sequence?.ownRange(of: grid.tokenCount)
    return TransformerStem(
      grid: grid, rotation: rotated.map { rotation.tokens($0) } ?? rotation,
      attention: JointAttention(
        headCount: configuration.attentionHeadCount / (tensor?.degree ?? 1),
        mask: inputs.jointMask(videoCount: grid.tokenCount),
        segments: [grid.tokenCount, inputs.textCount], sequence: sequence))
  }

  /// What comes before the blocks.
  private func embed(
    _ scope: LayerScope<Scalar>, _ inputs: TransformerInputs<Scalar>,
    _ stem: TransformerStem<Scalar>
  ) -> TokenState<Scalar> {
    let problems = inputs.problems(for: configuration)
    precondition(problems.isEmpty, problems.joined(separator: "; "))
    let tape = scope.tape
    let condition = scope("time_text_embed").conditionEmbedding(
      timestep: inputs.timestep, pooled: inputs.pooledProjections, guidance: inputs.guidance)
    let text = TokenRefiner(configuration: configuration)
      .forward(scope("context_embedder"), inputs)
    func own(_ tokens: Value<Scalar>) -> Value<Scalar> {
      guard let sequence = stem.attention.sequence else { return tokens }
      if let canonical = scope.canonical { return canonical.ownTokens(tokens, on: tape) }
      return tape.slice(tokens, along: 1, sequence.ownRange(of: tokens.shape[1]))
    }
    let all = stem.grid.patches(of: inputs.hiddenStates, on: tape)
    let patches =
      if scope.canonical == nil, all.isTracked, let sequence = stem.attention.sequence {
        sequence.ownTokens(all, on: tape)
      } else {
        own(all)
      }
    let video = scope.over([stem.segments[0]]).linear("x_embedder.proj", patches)
    return TokenState(
      streams: [video, own(text)], condition: tape.apply(.silu, to: condition))
  }

  private func rotation(of grid: PatchGrid) -> RotaryTable<Scalar> {
    if let latestRotation, latestRotation.sizes == grid.sizes { return latestRotation.table }
    let table = RotaryTable<Scalar>(
      gridSizes: grid.sizes, axisWidths: configuration.ropeAxesWidths,
      theta: configuration.ropeTheta)
    latestRotation = (grid.sizes, table)
    return table
  }

  /// Runs blocks of two streams, then of one.
  /// - Parameter state: gone when the first of them is through, unless the tape keeps it.
  private func runBlocks(
    _ blocks: Range<Int>, _ scope: LayerScope<Scalar>, _ stem: TransformerStem<Scalar>,
    _ state: consuming TokenState<Scalar>, recomputedShare: Double
  ) -> TokenState<Scalar> {
    var (streams, condition) = (state.streams, state.condition)
    _ = consume state
    for index in blocks {
      let recompute = isInEvenShare(index, share: recomputedShare)
      guard index >= configuration.doubleBlockCount else {
        let name = "transformer_blocks.\(index)"
        let block = DoubleStreamBlock(scope: scope(name), stem: stem)
        streams = scope.run(name, streams + [condition], recompute: recompute) { tape, inputs in
          block.forward(tape, video: inputs[0], text: inputs[1], condition: inputs[2])
        }
        continue
      }
      if streams.count == 2 {
        streams = [scope.tape.concatenate(streams, along: 1)]  // [B, L+T, D]
      }
      let name = "single_transformer_blocks.\(index - configuration.doubleBlockCount)"
      let block = SingleStreamBlock(scope: scope(name), stem: stem)
      streams = scope.run(name, streams + [condition], recompute: recompute) { tape, inputs in
        [block.forward(tape, joint: inputs[0], condition: inputs[1])]
      }
    }
    return TokenState(streams: streams, condition: condition)
  }

  /// Modulation, projection, and patches back in place. Not inlined: what it makes on the way is gone when
  /// the velocity is published, which other microbatches in flight may run between.
  @inline(never)
  private func project(
    _ scope: LayerScope<Scalar>, _ stem: TransformerStem<Scalar>,
    _ state: consuming TokenState<Scalar>
  ) -> Value<Scalar> {
    let tokens = state.streams[0]
    let video =
      state.streams.count == 1
      ? scope.tape.slice(tokens, along: 1, 0..<stem.videoCount) : tokens
    let normalized = scope.modulatedLayerNorm(
      "norm_out.linear", video, condition: state.condition,
      epsilon: HunyuanVideoConfiguration.epsilon, [stem.segments[0]])
    let patches = scope.over([stem.segments[0]]).linear("proj_out", normalized)
    let whole =
      stem.attention.sequence?.gatherTokens(
        patches, tokenCount: stem.grid.tokenCount, on: scope.tape) ?? patches
    return stem.grid.latents(of: whole, on: scope.tape)
  }
}

/// What all blocks share.
struct TransformerStem<Scalar: KernelScalar> {
  let grid: PatchGrid
  let rotation: RotaryTable<Scalar>
  let attention: JointAttention<Scalar>
  /// Video and text tokens of a sample, all parts together.
  var segments: [Int] { attention.segments }
  /// Own video tokens.
  var videoCount: Int { ownCount(of: grid.tokenCount) }

  private func ownCount(of tokenCount: Int) -> Int {
    attention.sequence?.ownRange(of: tokenCount).count ?? tokenCount
  }

  /// Shapes of the values of a state between blocks.
  func stateShapes(
    before block: Int, _ configuration: HunyuanVideoConfiguration
  ) -> [[Int]] {
    let own = segments.map(ownCount(of:))
    let counts = block <= configuration.doubleBlockCount ? own : [own.reduce(0, +)]
    return counts.map { [grid.sampleCount, $0, configuration.width] }
      + [[grid.sampleCount, configuration.width]]
  }
}
