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
    let (videoSegment, textSegment) = ([stem.segments[0]], [stem.segments[1]])
    let videoModulation = Modulation(
      scope, "norm1.linear", condition, epsilon: epsilon, videoSegment)
    let textModulation = Modulation(
      scope, "norm1_context.linear", condition, epsilon: epsilon, textSegment)

    let (videoScope, textScope) = (scope.overGroup(videoSegment), scope.overGroup(textSegment))
    let x = scope.gathered(videoModulation.enterAttention(video), videoSegment)
    let y = scope.gathered(textModulation.enterAttention(text), textSegment)
    func operand(_ parts: Value<Scalar>...) -> AttentionOperand<Scalar> {
      stem.attention.operand(tape, tape.concatenate(parts, along: 1))  // [B, L+T, D]
    }
    let query = operand(
      normed(videoScope, "attn.norm_q", videoScope.linear("attn.to_q", x), isVideo: true),
      normed(textScope, "attn.norm_added_q", textScope.linear("attn.add_q_proj", y), isVideo: false)
    )
    let key = operand(
      normed(videoScope, "attn.norm_k", videoScope.linear("attn.to_k", x), isVideo: true),
      normed(textScope, "attn.norm_added_k", textScope.linear("attn.add_k_proj", y), isVideo: false)
    )
    let value = operand(
      videoScope.linear("attn.to_v", x), textScope.linear("attn.add_v_proj", y))
    let attended = stem.attention(tape, query: query, key: key, value: value)

    let videoCount = x.shape[1]
    let videoPart = tape.slice(attended, along: 1, 0..<videoCount)
    let textPart = tape.slice(attended, along: 1, videoCount..<attended.shape[1])
    let videoMiddle = videoModulation.leaveAttention(
      video, videoScope.rowLinear("attn.to_out.0", parts: [videoPart], videoSegment))
    let textMiddle = textModulation.leaveAttention(
      text, textScope.rowLinear("attn.to_add_out", parts: [textPart], textSegment))
    return [
      videoModulation.mlp(scope("ff"), videoMiddle),
      textModulation.mlp(scope("ff_context"), textMiddle),
    ]
  }

  private func normed(
    _ scope: LayerScope<Scalar>, _ name: String, _ x: Value<Scalar>, isVideo: Bool
  ) -> Value<Scalar> {
    let segment = [stem.segments[isVideo ? 0 : 1]]
    return scope.tape.headNorm(
      x, gain: scope.parameter(name + ".weight"), rotation: isVideo ? stem.rotation : nil,
      headCount: stem.attention.headCount, epsilon: HunyuanVideoConfiguration.epsilon,
      slices: scope.tokenSlices(x.shape[0], segment), sums: scope.sums)
  }
}
