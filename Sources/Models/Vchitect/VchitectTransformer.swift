// Vchitect-2.0's diffusion transformer: an image transformer (Stable Diffusion 3) on every frame of a clip,
// whose blocks also attend along time and to the text of the clip.
//
// Goals, ranked: 1 agreement with the released form for one clip, and clips of a batch as if each were
// alone; 2 memory; 3 speed.
// Source: Vchitect-2.0 (2501.08453), specification §2, 3 and 10; `Vchitect/Vchitect-2.0`,
// models/VchitectXL.py, which is right for one clip only (it tiles the condition over frames, and takes
// the text of the batch's first frame for all).
// Letters: B clips, C channels, F frames, H rows, W columns of latents; S image tokens and T text tokens
// of a frame, D width, E text width, P pooled width.

package import Autodiff
import Basics
package import DenseKernels
import Tensors

/// Runs the transformer over a set of parameters. It holds no state of a run: several of them, or
/// several tapes, may share one set.
package final class VchitectTransformer<Scalar: KernelScalar> {
  package let configuration: VchitectConfiguration
  package let parameters: ParameterSet<Scalar>
  private let positions: PositionTable

  /// - Precondition: the set holds every parameter of the configuration, in its shape; it may hold more.
  package init(_ configuration: VchitectConfiguration, parameters: ParameterSet<Scalar>) {
    parameters.require(configuration.parameterSpecifications)
    self.configuration = configuration
    self.parameters = parameters
    positions = PositionTable(configuration)
  }

  /// The predicted velocity.
  ///
  /// Rows and columns that fill no patch are left out of the result, as in the released code.
  /// - Shapes: hidden states [B, C, F, H, W] → [B, Cout, F, H, W].
  /// - Parameters:
  ///   - inputs: gone when the first block begins.
  ///   - recomputedShare: share of the blocks, evenly spread, that store only their inputs and run again in
  ///     `backward`.
  ///   - sequence: runs the blocks on a part of the tokens of every frame, with a part of their weights, or some of
  ///     the blocks; inputs and result are whole.
  /// - Precondition: `inputs.problems(for: configuration)` is empty where the first block is run; with
  ///   canonical sums the sequence exchanges all branches of form v2 (`SequencePlan`).
  package func forward(
    tape: Tape<Scalar>, _ inputs: consuming VchitectInputs<Scalar>,
    adapter: Adapter<Scalar>? = nil, recomputedShare: Double = 0,
    sequence: (any SequenceParallel<Scalar>)? = nil
  ) -> Value<Scalar> {
    let stage = sequence?.stage
    let blocks = stage?.blocks(of: configuration.blockCount) ?? 0..<configuration.blockCount
    let (scope, stem) = place(tape, inputs, adapter, sequence)
    let state = runBlocks(
      blocks, scope, stem, firstState(scope, inputs, stem, stage), recomputedShare: recomputedShare)
    if let stage, !stage.isLast {
      return stage.handOn(
        (consume state).taken(), velocityShape: stem.grid.latentShape(configuration.outChannels),
        on: tape)
    }
    let velocity = project(scope, stem, consume state)
    stage?.publish(velocity)
    return velocity
  }

  /// The mean of the image tokens after the last block, over all frames of a clip: all blocks have two streams.
  /// - Shapes: → [B, D].
  package func features(
    tape: Tape<Scalar>, _ inputs: consuming VchitectInputs<Scalar>,
    adapter: Adapter<Scalar>? = nil, recomputedShare: Double = 0,
    sequence: (any SequenceParallel<Scalar>)? = nil
  ) -> Value<Scalar> {
    let stage = sequence?.stage
    let (scope, stem) = place(tape, inputs, adapter, sequence)
    let shape = [stem.clipCount, configuration.width]
    func run(
      _ blocks: Range<Int>, _ inputs: consuming VchitectInputs<Scalar>
    ) -> TokenState<Scalar> {
      runBlocks(
        blocks, scope, stem, firstState(scope, inputs, stem, stage),
        recomputedShare: recomputedShare)
    }
    let count = configuration.blockCount
    switch FeaturesRole(stage, featureBlockCount: count, blockCount: count) {
    case .before(let stage, let source, let blocks):
      return stage.handOn(run(blocks, inputs).taken(), featuresShape: shape, of: source, on: tape)
    case .source(let blocks):
      let features = scope.tokenMean(
        run(blocks, inputs).streams[0], sampleCount: shape[0], segment: stem.tokenCounts[0],
        sequence: sequence)
      stage?.publish(features: features)
      return features
    case .behind(let stage, let source):
      return stage.receiveFeatures(shape, of: source, on: tape)
    }
  }

  // MARK: Parts

  private func place(
    _ tape: Tape<Scalar>, _ inputs: VchitectInputs<Scalar>, _ adapter: Adapter<Scalar>?,
    _ sequence: (any SequenceParallel<Scalar>)?
  ) -> (LayerScope<Scalar>, VchitectStem<Scalar>) {
    let scope = LayerScope(
      tape, parameters, adapter: adapter, tensor: sequence?.tensor,
      extent: sequence?.extent ?? .whole, canonical: sequence?.canonical,
      slices: sequence?.canonical?.sliceCount(
        heads: configuration.attentionHeadCount, hiddenUnits: configuration.mlpWidth))
    return (scope, stem(scope, inputs, sequence: sequence?.tokens))
  }

  /// What blocks begin with: from the stage before, or embedded here.
  private func firstState(
    _ scope: LayerScope<Scalar>, _ inputs: consuming VchitectInputs<Scalar>,
    _ stem: VchitectStem<Scalar>, _ stage: (any PipelineStage<Scalar>)?
  ) -> TokenState<Scalar> {
    guard let stage, !stage.isFirst else { return embed(scope, inputs, stem) }
    return TokenState(
      stage.receive(stem.stateShapes(width: configuration.width), on: scope.tape))
  }

  private func stem(
    _ scope: LayerScope<Scalar>, _ inputs: VchitectInputs<Scalar>,
    sequence: (any SequenceParallel<Scalar>)?
  ) -> VchitectStem<Scalar> {
    let exchange = sequence?.headExchange
    precondition(
      scope.canonical == nil || configuration.variant == .v1 || exchange?.plan ?? .all == .all,
      "the text's keys have gradients of other ranks' tokens, which are not summed in blocks")
    let grid = PatchGrid(
      latents: inputs.hiddenStates.shape,
      patch: [1, configuration.patchSize, configuration.patchSize])
    return VchitectStem(
      grid: grid,
      rotation: RotaryTable(
        positionCount: grid.sizes[0], headWidth: configuration.attentionHeadWidth,
        theta: configuration.ropeTheta, scaling: configuration.ropeScalingFactor),
      tokenCounts: [grid.sizes[1] * grid.sizes[2], inputs.encoderHiddenStates.shape[1]],
      sequence: sequence)
  }

  /// What comes before the blocks.
  private func embed(
    _ scope: LayerScope<Scalar>, _ inputs: VchitectInputs<Scalar>, _ stem: VchitectStem<Scalar>
  ) -> TokenState<Scalar> {
    let problems = inputs.problems(for: configuration)
    precondition(problems.isEmpty, problems.joined(separator: "; "))
    let condition = scope.tape.apply(
      .silu,
      to: scope("time_text_embed").conditionEmbedding(
        timestep: inputs.timestep, pooled: inputs.pooledProjections))  // [B, D]
    return TokenState(
      streams: [
        imageTokens(scope, inputs.hiddenStates, stem.grid, stem.sequence),
        textTokens(
          scope, inputs.encoderHiddenStates, frameCount: stem.grid.sizes[0], stem.sequence),
      ], condition: condition)
  }

  /// The last block leaves the image tokens alone.
  /// - Parameter state: gone when the first block is through, unless the tape keeps it.
  private func runBlocks(
    _ blocks: Range<Int>, _ scope: LayerScope<Scalar>, _ stem: VchitectStem<Scalar>,
    _ state: consuming TokenState<Scalar>, recomputedShare: Double
  ) -> TokenState<Scalar> {
    var (streams, condition) = (state.streams, state.condition)
    _ = consume state
    for index in blocks {
      let name = "transformer_blocks.\(index)"
      let block = MultimodalDiffusionBlock(
        scope: scope(name), configuration: configuration, stem: stem,
        isLast: index == configuration.blockCount - 1)
      streams = scope.run(
        name, streams + [condition],
        recompute: isInEvenShare(index, share: recomputedShare)
      ) { tape, inputs in
        block.forward(tape, image: inputs[0], text: inputs[1], condition: inputs[2])
      }
    }
    return TokenState(streams: streams, condition: condition)
  }

  /// Modulation, projection, and patches back in place. Not inlined, as HunyuanVideo's.
  @inline(never)
  private func project(
    _ scope: LayerScope<Scalar>, _ stem: VchitectStem<Scalar>,
    _ state: consuming TokenState<Scalar>
  ) -> Value<Scalar> {
    let normalized = scope.modulatedLayerNorm(
      "norm_out.linear", state.streams[0], condition: state.condition,
      epsilon: VchitectConfiguration.epsilon, [stem.tokenCounts[0]])
    let patches = scope.over([stem.tokenCounts[0]]).linear("proj_out", normalized)
    let whole =
      stem.sequence?.gatherTokens(patches, tokenCount: stem.tokenCounts[0], on: scope.tape)
      ?? patches
    return stem.grid.latents(of: whole, .channelsLast, on: scope.tape)
  }

  /// Patches with their positions, which are the same in every frame: [B, C, F, H, W] → [B·F, S, D].
  private func imageTokens(
    _ scope: LayerScope<Scalar>, _ latents: Value<Scalar>, _ grid: PatchGrid,
    _ sequence: (any SequenceParallel<Scalar>)?
  ) -> Value<Scalar> {
    let tape = scope.tape
    let samples = grid.sampleCount * grid.sizes[0]
    let count = grid.sizes[1] * grid.sizes[2]
    let patches = grid.patches(of: latents, on: tape)  // [B, F·S, C·p·p]
    let frames = patches.reshaped([samples, count, patches.shape[2]])
    let own = sequence?.ownRange(of: count) ?? 0..<count
    let ownFrames =
      if scope.canonical == nil, frames.isTracked, let sequence {
        sequence.ownTokens(frames, on: tape)
      } else {
        ownTokens(scope, frames, sequence)
      }
    let tokens = scope.over([count]).linear("pos_embed.proj", ownFrames)
    let table = tape.result([own.count, configuration.width])
    let elements: [Scalar] = positions.cropped(rows: grid.sizes[1], columns: grid.sizes[2])
    let width = configuration.width
    table.buffer.copy(from: Array(elements[own.lowerBound * width..<own.upperBound * width]))
    return tape.add(tokens, tape.repeated(Value(constant: table), count: samples))
  }

  /// A copy of the clip's text for each of its frames: [B, T, E] → [B·F, T, D].
  private func textTokens(
    _ scope: LayerScope<Scalar>, _ text: Value<Scalar>, frameCount: Int,
    _ sequence: (any SequenceParallel<Scalar>)?
  ) -> Value<Scalar> {
    let own = ownTokens(scope, text, sequence)
    let projected = scope.over([text.shape[1]]).linear("context_embedder", own)
    let (clipCount, tokenCount) = (own.shape[0], own.shape[1])
    let frame = projected.reshaped([clipCount, 1, tokenCount, configuration.width])
    return scope.tape.concatenate(Array(repeating: frame, count: frameCount), along: 1)
      .reshaped([clipCount * frameCount, tokenCount, configuration.width])
  }

  private func ownTokens(
    _ scope: LayerScope<Scalar>, _ x: Value<Scalar>, _ sequence: (any SequenceParallel<Scalar>)?
  ) -> Value<Scalar> {
    guard let sequence else { return x }
    return scope.canonical?.ownTokens(x, on: scope.tape)
      ?? scope.tape.slice(x, along: 1, sequence.ownRange(of: x.shape[1]))
  }
}

extension VchitectTransformer: DiffusionTransformer {
  package func forward(
    tape: Tape<Scalar>, _ inputs: consuming TransformerInputs<Scalar>,
    adapter: Adapter<Scalar>?, recomputedShare: Double, sequence: (any SequenceParallel<Scalar>)?
  ) -> Value<Scalar> {
    forward(
      tape: tape, sequence?.stage?.isFirst ?? true ? checked(inputs) : VchitectInputs(inputs),
      adapter: adapter, recomputedShare: recomputedShare, sequence: sequence)
  }

  package func features(
    tape: Tape<Scalar>, _ inputs: consuming TransformerInputs<Scalar>,
    adapter: Adapter<Scalar>?, recomputedShare: Double, sequence: (any SequenceParallel<Scalar>)?
  ) -> Value<Scalar> {
    features(
      tape: tape, sequence?.stage?.isFirst ?? true ? checked(inputs) : VchitectInputs(inputs),
      adapter: adapter, recomputedShare: recomputedShare, sequence: sequence)
  }

  private func checked(_ inputs: consuming TransformerInputs<Scalar>) -> VchitectInputs<Scalar> {
    let problems = configuration.problems(of: inputs)
    precondition(problems.isEmpty, problems.joined(separator: "; "))
    return VchitectInputs(inputs)
  }
}

/// What all blocks share.
struct VchitectStem<Scalar: KernelScalar> {
  let grid: PatchGrid
  /// Angles of the frames of a clip.
  let rotation: RotaryTable<Scalar>
  /// S and T, those of all parts.
  let tokenCounts: [Int]
  /// Who shares the tokens of every frame; nil: nobody.
  let sequence: (any SequenceParallel<Scalar>)?

  /// B.
  var clipCount: Int { grid.sampleCount }

  /// Shapes of the values of a state between blocks: image [B·F, S, D] and text [B·F, T, D], own tokens where the
  /// sequence is cut, and the condition [B, D].
  func stateShapes(width: Int) -> [[Int]] {
    tokenCounts.map { count in
      [clipCount * grid.sizes[0], sequence?.ownRange(of: count).count ?? count, width]
    } + [[clipCount, width]]
  }
}
