// A block over the image tokens and text tokens of every frame: attention within frames, along time and to
// the text, side by side on the same normalized input, then an MLP for each stream. Where ranks cut the weights,
// attention is that of own heads over the group's tokens of every frame, all else is on own tokens.
//
// Source: Vchitect-2.0 (2501.08453), specification §3.
// Letters: B clips, F frames, S image tokens and T text tokens of a frame, D width.

import Autodiff
import DenseKernels

struct MultimodalDiffusionBlock<Scalar: KernelScalar> {
  let scope: LayerScope<Scalar>
  let configuration: VchitectConfiguration
  let stem: VchitectStem<Scalar>
  /// The last block's text only serves the image: it has no MLP, and leaves the network here.
  let isLast: Bool

  /// - Shapes: image [B·F, S, D], text [B·F, T, D] (or own tokens of both), condition [B, D] → the two
  ///   streams; of the last block, the image alone.
  func forward(
    _ tape: Tape<Scalar>, image: Value<Scalar>, text: Value<Scalar>, condition: Value<Scalar>
  ) -> [Value<Scalar>] {
    let scope = scope.on(tape)
    let epsilon = VchitectConfiguration.epsilon
    let (imageSegment, textSegment) = ([stem.tokenCounts[0]], [stem.tokenCounts[1]])
    let imageModulation = Modulation(
      scope, "norm1.linear", condition, epsilon: epsilon, imageSegment)
    let textModulation =
      isLast
      ? nil
      : Modulation(scope, "norm1_context.linear", condition, epsilon: epsilon, textSegment)

    let attention = MultimodalAttention(
      scope: scope("attn"), configuration: configuration,
      branches: SharedBranches(
        branches: AttentionBranches(
          tape: tape,
          headCount: configuration.attentionHeadCount / (scope.tensor?.degree ?? 1),
          clipCount: stem.clipCount, rotation: stem.rotation),
        sequence: stem.sequence?.headExchange, tokenCounts: stem.tokenCounts))
    let attended = attention.forward(
      image: scope.gathered(imageModulation.enterAttention(image), imageSegment),
      text: scope.gathered(
        textModulation?.enterAttention(text)
          ?? scope.modulatedLayerNorm(
            "norm1_context.linear", text, condition: condition, epsilon: epsilon, textSegment,
            isCut: true), textSegment), withText: !isLast)

    let imageMiddle = imageModulation.leaveAttention(image, attended.image)
    let imageOutput = imageModulation.mlp(scope("ff"), imageMiddle)
    guard let textModulation, let attendedText = attended.text else { return [imageOutput] }
    let textMiddle = textModulation.leaveAttention(text, attendedText)
    return [imageOutput, textModulation.mlp(scope("ff_context"), textMiddle)]
  }
}
