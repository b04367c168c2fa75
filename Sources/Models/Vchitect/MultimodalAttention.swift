// What a Multimodal Diffusion Block does between its modulations: projections of the two streams, the
// branches over them, and their merge. The text is projected once and serves every branch.
//
// With A_s, A_t, A_c the outputs of the spatial, temporal and cross branch, κ the spatial gain, ι = 0 for a
// single frame and else 1:
//   v2   Δ = W_o (κ A_s + W_c A_c) + ι W_o^t A_t
//   v1   Δ = W_o (A_s + ι A_t)
// where every W has its bias, and W_o, W_o^t are those of the stream.
// Source: Vchitect-2.0 (2501.08453), specification §3.2, 3.4 and 3.7.

import Autodiff
import DenseKernels

struct MultimodalAttention<Scalar: KernelScalar> {
  /// The module `attn` of a block.
  let scope: LayerScope<Scalar>
  let configuration: VchitectConfiguration
  let branches: AttentionBranches<Scalar>

  /// - Parameter withText: whether the text's own part is wanted, or only the image's.
  /// - Shapes: image [B·F, S, D], text [B·F, T, D] → as the two streams.
  func forward(
    image x: Value<Scalar>, text y: Value<Scalar>, withText: Bool
  ) -> (image: Value<Scalar>, text: Value<Scalar>?) {
    let tape = scope.tape
    let image = projections(of: x, "to_q", "to_k", "to_v")
    let (textKey, textValue) = (scope.linear("add_k_proj", y), scope.linear("add_v_proj", y))
    let textQuery = withText ? scope.linear("add_q_proj", y) : nil
    let spatial = branches.spatial(
      QueryKeyValue(
        query: textQuery.map { tape.concatenate([image.query, $0], along: 1) } ?? image.query,
        key: tape.concatenate([image.key, textKey], along: 1),
        value: tape.concatenate([image.value, textValue], along: 1)))

    let imageCount = x.shape[1]
    let imagePart = merged(
      spatial: withText ? tape.slice(spatial, along: 1, 0..<imageCount) : spatial,
      cross: QueryKeyValue(
        query: scope.linear("to_q_cross", x), key: textKey, value: textValue),
      temporal: configuration.variant == .v1
        ? image : projections(of: x, "to_q_temp", "to_k_temp", "to_v_temp"),
      into: "to_out.0", "to_out_temporal")
    guard let textQuery else { return (imagePart, nil) }

    let text = QueryKeyValue(query: textQuery, key: textKey, value: textValue)
    let textPart = merged(
      spatial: tape.slice(spatial, along: 1, imageCount..<spatial.shape[1]), cross: text,
      temporal: text, into: "to_add_out", "to_add_out_temporal")
    return (imagePart, textPart)
  }

  private func projections(
    of x: Value<Scalar>, _ query: String, _ key: String, _ value: String
  ) -> QueryKeyValue<Scalar> {
    QueryKeyValue(
      query: scope.linear(query, x), key: scope.linear(key, x), value: scope.linear(value, x))
  }

  /// Δ of one stream. Operands that its form of the block has no use for are not computed.
  private func merged(
    spatial: Value<Scalar>, cross: @autoclosure () -> QueryKeyValue<Scalar>,
    temporal: @autoclosure () -> QueryKeyValue<Scalar>, into output: String,
    _ temporalOutput: String
  ) -> Value<Scalar> {
    let tape = scope.tape
    let temporal = branches.frameCount > 1 ? branches.temporal(temporal()) : nil
    switch configuration.variant {
    case .v1:
      return scope.linear(output, temporal.map { tape.add(spatial, $0) } ?? spatial)
    case .v2:
      let context = scope.linear("to_out_context", branches.cross(cross()))
      let merged = scope.linear(
        output, tape.combine(configuration.spatialGain, spatial, 1, context))
      return temporal.map { tape.add(merged, scope.linear(temporalOutput, $0)) } ?? merged
    }
  }
}
