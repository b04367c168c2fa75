// A block over video and text tokens together, attention and MLP side by side.

import Autodiff
import DenseKernels

struct SingleStreamBlock<Scalar: KernelScalar> {
  let scope: LayerScope<Scalar>
  let stem: TransformerStem<Scalar>

  /// - Shapes: joint [B, L+T, D] with the text at the tail, condition [B, D] → [B, L+T, D].
  func forward(
    _ tape: Tape<Scalar>, joint: Value<Scalar>, condition: Value<Scalar>
  ) -> Value<Scalar> {
    let perSample = scope.on(tape)
    let (scope, ownSums) = (
      perSample.overGroup(stem.segments), perSample.over(stem.segments).sums
    )
    let epsilon = HunyuanVideoConfiguration.epsilon
    let headCount = stem.attention.headCount
    let modulation = tape.chunks(perSample.columns("norm.linear", condition), count: 3)
    let normalized = tape.layerNorm(
      joint, scale: modulation[1], shift: modulation[0], epsilon: epsilon, sums: ownSums)
    let x = scope.gathered(normalized, stem.segments)
    let slices = scope.tokenSlices(x.shape[0], stem.segments)
    func normed(_ name: String, _ x: Value<Scalar>) -> Value<Scalar> {
      tape.headNorm(
        x, gain: scope.parameter(name + ".weight"), rotation: stem.rotation, headCount: headCount,
        epsilon: epsilon, slices: slices, sums: scope.sums)
    }
    let query = stem.attention.operand(
      tape, normed("attn.norm_q", scope.linear("attn.to_q", x)))
    let key = stem.attention.operand(tape, normed("attn.norm_k", scope.linear("attn.to_k", x)))
    let value = stem.attention.operand(tape, scope.linear("attn.to_v", x))
    // Meanwhile operands travel, and their gradients on the way back.
    let mlp = tape.apply(.geluTanh, to: scope.linear("proj_mlp", x))
    let attended = stem.attention(tape, query: query, key: key, value: value)
    return tape.gatedResidual(
      joint, gate: modulation[2],
      scope.rowLinear("proj_out", parts: [attended, mlp], stem.segments), sums: ownSums)
  }
}
