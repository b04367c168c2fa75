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
  /// - Parameter recomputedShare: share of the blocks, evenly spread, that store only their inputs and run
  ///   again in `backward`.
  /// - Precondition: `inputs.problems(for: configuration)` is empty.
  package func forward(
    tape: Tape<Scalar>, _ inputs: VchitectInputs<Scalar>, adapter: Adapter<Scalar>? = nil,
    recomputedShare: Double = 0
  ) -> Value<Scalar> {
    let problems = inputs.problems(for: configuration)
    precondition(problems.isEmpty, problems.joined(separator: "; "))
    let scope = LayerScope(tape, parameters, adapter: adapter)
    let grid = PatchGrid(
      latents: inputs.hiddenStates.shape,
      patch: [1, configuration.patchSize, configuration.patchSize])
    let (clipCount, frameCount) = (grid.sampleCount, grid.sizes[0])
    let condition = tape.apply(
      .silu,
      to: scope("time_text_embed").conditionEmbedding(
        timestep: inputs.timestep, pooled: inputs.pooledProjections))  // [B, D]
    let rotation = RotaryTable<Scalar>(
      positionCount: frameCount, headWidth: configuration.attentionHeadWidth,
      theta: configuration.ropeTheta, scaling: configuration.ropeScalingFactor)

    var streams = [
      imageTokens(scope, inputs.hiddenStates, grid),  // [B·F, S, D]
      textTokens(scope, inputs.encoderHiddenStates, frameCount: frameCount),  // [B·F, T, D]
    ]
    for index in 0..<configuration.blockCount {
      let name = "transformer_blocks.\(index)"
      let block = MultimodalDiffusionBlock(
        scope: scope(name), configuration: configuration,
        clipCount: clipCount, rotation: rotation, isLast: index == configuration.blockCount - 1)
      streams = scope.run(
        name, streams + [condition], recompute: isInEvenShare(index, share: recomputedShare)
      ) { tape, inputs in
        block.forward(tape, image: inputs[0], text: inputs[1], condition: inputs[2])
      }
    }
    let normalized = scope.modulatedLayerNorm(
      "norm_out.linear", streams[0], condition: condition, epsilon: VchitectConfiguration.epsilon)
    return grid.latents(of: scope.linear("proj_out", normalized), .channelsLast, on: tape)
  }

  /// Patches with their positions, which are the same in every frame.
  private func imageTokens(
    _ scope: LayerScope<Scalar>, _ latents: Value<Scalar>, _ grid: PatchGrid
  ) -> Value<Scalar> {
    let tape = scope.tape
    let patches = grid.patches(of: latents, on: tape)  // [B, F·S, C·p·p]
    let samples = grid.sampleCount * grid.sizes[0]
    let tokens = scope.linear("pos_embed.proj", patches)
      .reshaped([samples, grid.sizes[1] * grid.sizes[2], configuration.width])
    let table = tape.result(Array(tokens.shape.dropFirst()))
    table.buffer.copy(from: positions.cropped(rows: grid.sizes[1], columns: grid.sizes[2]))
    return tape.add(tokens, tape.repeated(Value(constant: table), count: samples))
  }

  /// A copy of the clip's text for each of its frames: [B, T, E] → [B·F, T, D].
  private func textTokens(
    _ scope: LayerScope<Scalar>, _ text: Value<Scalar>, frameCount: Int
  ) -> Value<Scalar> {
    let projected = scope.linear("context_embedder", text)
    let (clipCount, tokenCount) = (text.shape[0], text.shape[1])
    let frame = projected.reshaped([clipCount, 1, tokenCount, configuration.width])
    return scope.tape.concatenate(Array(repeating: frame, count: frameCount), along: 1)
      .reshaped([clipCount * frameCount, tokenCount, configuration.width])
  }
}
