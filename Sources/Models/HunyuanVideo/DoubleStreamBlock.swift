// A block in which video and text have their own weights and meet in one attention.

import Autodiff
import DenseKernels

struct DoubleStreamBlock<Scalar: KernelScalar> {
  let scope: LayerScope<Scalar>
  let stem: TransformerStem<Scalar>

  /// - Shapes: video [B, L, D], text [B, T, D] (or own tokens of both), condition [B, D] → the two streams.
  func forward(
    _ tape: Tape<Scalar>, video: Value<Scalar>, text: Value<Scalar>, condition: Value<Scalar>
  ) -> [Value<Scalar>] {
    let scope = scope.on(tape)
    let epsilon = HunyuanVideoConfiguration.epsilon
    let videoModulation = Modulation(scope, "norm1.linear", condition, epsilon: epsilon)
    let textModulation = Modulation(scope, "norm1_context.linear", condition, epsilon: epsilon)

    let (videoSegment, textSegment) = ([stem.segments[0]], [stem.segments[1]])
    let x = scope.gathered(videoModulation.enterAttention(video), videoSegment)
    let y = scope.gathered(textModulation.enterAttention(text), textSegment)
    let query = tape.concatenate(
      [
        normed(scope, "attn.norm_q", scope.linear("attn.to_q", x), rotated: true),
        normed(scope, "attn.norm_added_q", scope.linear("attn.add_q_proj", y), rotated: false),
      ], along: 1)  // [B, L+T, D]
    let key = tape.concatenate(
      [
        normed(scope, "attn.norm_k", scope.linear("attn.to_k", x), rotated: true),
        normed(scope, "attn.norm_added_k", scope.linear("attn.add_k_proj", y), rotated: false),
      ], along: 1)
    let value = tape.concatenate(
      [scope.linear("attn.to_v", x), scope.linear("attn.add_v_proj", y)], along: 1)
    let attended = stem.attention(tape, query: query, key: key, value: value)

    let videoCount = x.shape[1]
    let videoPart = tape.slice(attended, along: 1, 0..<videoCount)
    let textPart = tape.slice(attended, along: 1, videoCount..<attended.shape[1])
    let videoMiddle = videoModulation.leaveAttention(
      video, scope.rowLinear("attn.to_out.0", parts: [videoPart], videoSegment))
    let textMiddle = textModulation.leaveAttention(
      text, scope.rowLinear("attn.to_add_out", parts: [textPart], textSegment))
    return [
      videoModulation.mlp(scope("ff"), videoMiddle, videoSegment),
      textModulation.mlp(scope("ff_context"), textMiddle, textSegment),
    ]
  }

  private func normed(
    _ scope: LayerScope<Scalar>, _ name: String, _ x: Value<Scalar>, rotated: Bool
  ) -> Value<Scalar> {
    scope.tape.headNorm(
      x, gain: scope.parameter(name + ".weight"), rotation: rotated ? stem.rotation : nil,
      headCount: stem.attention.headCount, epsilon: HunyuanVideoConfiguration.epsilon)
  }
}
