// What a Multimodal Diffusion Block does between its modulations: projections of the two streams, the
// branches over them, and their merge. The text is projected once and serves every branch.
//
// With A_s, A_t, A_c the outputs of the spatial, temporal and cross branch, κ the spatial gain, ι = 0 for a
// single frame and else 1:
//   v2   Δ = W_o (κ A_s + W_c A_c) + ι W_o^t A_t
//   v1   Δ = W_o (A_s + ι A_t)
// where every W has its bias, and W_o, W_o^t are those of the stream. Where ranks cut the weights, branches are on
// own heads, so W_c takes them and has to give them again for W_o: its terms are summed by columns (`innerLinear`).
// Source: Vchitect-2.0 (2501.08453), specification §3.2, 3.4 and 3.7.

import Autodiff
import DenseKernels

struct MultimodalAttention<Scalar: KernelScalar> {
  /// The module `attn` of a block.
  let scope: LayerScope<Scalar>
  let configuration: VchitectConfiguration
  let branches: SharedBranches<Scalar>

  /// - Parameter withText: whether the text's own part is wanted, or only the image's.
  /// - Shapes: image [B·F, S, D], text [B·F, T, D], or own tokens of both → as the two streams. Where weights are
  ///   cut the group's tokens come in, and own ones go out.
  func forward(
    image x: Value<Scalar>, text y: Value<Scalar>, withText: Bool
  ) -> (image: Value<Scalar>, text: Value<Scalar>?) {
    let image = projections(of: x, "to_q", "to_k", "to_v")
    let textKey = projection(of: y, "add_k_proj", .text)
    let textValue = projection(of: y, "add_v_proj", .text)
    let textQuery = withText ? projection(of: y, "add_q_proj", .text) : nil
    let spatial = branches.spatial(
      queries: [image.query] + (textQuery.map { [$0] } ?? []), keys: [image.key, textKey],
      values: [image.value, textValue])
    let context =
      configuration.variant == .v1
      ? nil : (key: branches.context(textKey), value: branches.context(textValue))
    func cross(_ query: @autoclosure () -> Value<Scalar>) -> QueryKeyValue<Scalar>? {
      context.map { QueryKeyValue(query: query(), key: $0.key, value: $0.value) }
    }
    let imageCross = cross(projection(of: x, "to_q_cross", .image))
    let contexts = jointContexts(image: imageCross, text: textQuery.flatMap { cross($0) })

    let imagePart = merged(
      .image, spatial: spatial[0], cross: imageCross, context: contexts?[0],
      temporal: configuration.variant == .v1
        ? image : projections(of: x, "to_q_temp", "to_k_temp", "to_v_temp"),
      into: "to_out.0", "to_out_temporal")
    guard let textQuery else { return (imagePart, nil) }
    let textPart = merged(
      .text, spatial: spatial[1], cross: cross(textQuery), context: contexts?[1],
      temporal: QueryKeyValue(query: textQuery, key: textKey, value: textValue),
      into: "to_add_out", "to_add_out_temporal")
    return (imagePart, textPart)
  }

  private func projection(
    of x: Value<Scalar>, _ name: String, _ stream: Stream
  ) -> Value<Scalar> {
    branches.operand(over(stream).linear(name, x), of: stream)
  }

  /// The place of layers that run on a stream's tokens.
  private func over(_ streams: Stream...) -> LayerScope<Scalar> {
    scope.overGroup(segments(streams))
  }

  /// Tokens of these streams, all parts together.
  private func segments(_ streams: [Stream]) -> [Int] {
    streams.map { branches.tokenCounts[$0.rawValue] }
  }

  /// W_c A_c of both streams, with canonical sums: one layer over the tokens of both, so that its gradient is one
  /// sum in blocks.
  private func jointContexts(
    image: QueryKeyValue<Scalar>?, text: QueryKeyValue<Scalar>?
  ) -> [Value<Scalar>]? {
    guard scope.canonical != nil, let image, let text else { return nil }
    let tape = scope.tape
    let parts = [branches.cross(image, of: .image), branches.cross(text, of: .text)]
    let joint = over(.image, .text).innerLinear(
      "to_out_context", tape.concatenate(parts, along: 1), segments([.image, .text]))
    let imageCount = parts[0].shape[1]
    return [0..<imageCount, imageCount..<joint.shape[1]].map {
      tape.slice(joint, along: 1, $0)
    }
  }

  /// Of the image.
  private func projections(
    of x: Value<Scalar>, _ query: String, _ key: String, _ value: String
  ) -> QueryKeyValue<Scalar> {
    QueryKeyValue(
      query: projection(of: x, query, .image), key: projection(of: x, key, .image),
      value: projection(of: x, value, .image))
  }

  /// Δ of one stream. Temporal operands are not computed for a single frame.
  /// - Parameter context: W_c A_c, where it is there already.
  private func merged(
    _ stream: Stream, spatial: Value<Scalar>, cross: QueryKeyValue<Scalar>?,
    context: Value<Scalar>?, temporal: @autoclosure () -> QueryKeyValue<Scalar>,
    into output: String,
    _ temporalOutput: String
  ) -> Value<Scalar> {
    let tape = scope.tape
    let scope = over(stream)
    let segments = self.segments([stream])
    let temporal = branches.frameCount > 1 ? branches.temporal(temporal(), of: stream) : nil
    guard let cross else {
      return scope.rowLinear(
        output, parts: [temporal.map { tape.add(spatial, $0) } ?? spatial], segments)
    }
    let context =
      context
      ?? scope.innerLinear("to_out_context", branches.cross(cross, of: stream), segments)
    let merged = tape.combine(configuration.spatialGain, spatial, 1, context)
    return scope.rowLinears(
      [(output, merged)] + (temporal.map { [(temporalOutput, $0)] } ?? []), segments)
  }
}
