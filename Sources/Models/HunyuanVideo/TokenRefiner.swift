// The text side before the blocks: projected tokens pass through a few bidirectional blocks that are gated
// by time and mean text. No rotary positions and no norm of queries and keys here.

import Autodiff
import DenseKernels

struct TokenRefiner {
  let configuration: HunyuanVideoConfiguration

  /// - Shapes: text [B, T, E] → [B, T, D].
  func forward<Scalar>(
    _ scope: LayerScope<Scalar>, _ inputs: TransformerInputs<Scalar>
  ) -> Value<Scalar> {
    let tape = scope.tape
    let text = inputs.encoderHiddenStates
    let mean = tape.weightedTokenSum(text, weights: inputs.textMeanWeights)  // [B, E]
    let condition = tape.apply(
      .silu,
      to: scope("time_text_embed").conditionEmbedding(timestep: inputs.timestep, pooled: mean))
    let mask = inputs.refinerMask
    var x = scope.linear("proj_in", text)  // [B, T, D]
    for index in 0..<configuration.refinerBlockCount {
      x = block(
        scope("token_refiner.refiner_blocks.\(index)"), x, condition: condition, mask: mask)
    }
    return x
  }

  private func block<Scalar>(
    _ scope: LayerScope<Scalar>, _ x: Value<Scalar>, condition: Value<Scalar>,
    mask: AttentionMask?
  ) -> Value<Scalar> {
    let tape = scope.tape
    let epsilon = HunyuanVideoConfiguration.epsilon
    let gates = tape.chunks(scope.linear("norm_out.linear", condition), count: 2)
    let normalized = scope.layerNorm("norm1", x, epsilon: epsilon)
    let attended = tape.attention(
      query: scope.linear("attn.to_q", normalized), key: scope.linear("attn.to_k", normalized),
      value: scope.linear("attn.to_v", normalized), headCount: configuration.attentionHeadCount,
      mask: mask)
    let y = tape.gatedResidual(x, gate: gates[0], scope.linear("attn.to_out.0", attended))
    let hidden = scope.layerNorm("norm2", y, epsilon: epsilon)
    return tape.gatedResidual(
      y, gate: gates[1], scope.mlp("ff.net.0.proj", .silu, "ff.net.2", hidden))
  }
}
