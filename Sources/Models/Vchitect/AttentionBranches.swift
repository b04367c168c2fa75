// The three attentions of a Multimodal Diffusion Block over the tokens of clips, whose frames lie in the
// batch dimension, those of one clip in a row: [B·F, tokens, D]. None of them knows where its queries,
// keys and values came from; only the spatial one relates tokens of a frame to each other. What is done
// about that where tokens are shared: SharedBranches.swift.
//
// Source: Vchitect-2.0 (2501.08453), specification §3.3.

import Autodiff
import DenseKernels

/// The operands of one attention.
struct QueryKeyValue<Scalar: KernelScalar> {
  let query: Value<Scalar>
  let key: Value<Scalar>
  let value: Value<Scalar>
}

struct AttentionBranches<Scalar: KernelScalar> {
  let tape: Tape<Scalar>
  /// Heads that lie side by side in the operands.
  let headCount: Int
  let clipCount: Int
  /// Angles of the frames of a clip.
  let rotation: RotaryTable<Scalar>

  /// F.
  var frameCount: Int { rotation.tokenCount }

  /// Within each frame.
  /// - Shapes: query [B·F, Lq, D], key and value [B·F, Lk, D] → [B·F, Lq, D].
  func spatial(_ operands: QueryKeyValue<Scalar>) -> Value<Scalar> {
    tape.attention(
      query: operands.query, key: operands.key, value: operands.value, headCount: headCount)
  }

  /// Within each token across the frames of its clip, with rotary positions.
  /// - Shapes: all [B·F, L, D].
  func temporal(_ operands: QueryKeyValue<Scalar>) -> Value<Scalar> {
    let shape = operands.query.shape
    let framesOutside = [clipCount, frameCount, shape[1], shape[2]]
    let framesInside = [clipCount, shape[1], frameCount, shape[2]]
    let samples = [clipCount * shape[1], frameCount, shape[2]]
    func rotated(_ x: Value<Scalar>) -> Value<Scalar> {
      tape.rotatedAndTransposed(x.reshaped(framesOutside), by: rotation).reshaped(samples)
    }
    let value = tape.permuted(operands.value.reshaped(framesOutside), axes: [0, 2, 1, 3])
    let attended = tape.attention(
      query: rotated(operands.query), key: rotated(operands.key), value: value.reshaped(samples),
      headCount: headCount)  // [B·L, F, D]
    return tape.permuted(attended.reshaped(framesInside), axes: [0, 2, 1, 3]).reshaped(shape)
  }

  /// Each token of a clip over the keys of the clip.
  /// - Shapes: query [B·F, L, D], key and value [B, T, D] → [B·F, L, D].
  func cross(_ operands: QueryKeyValue<Scalar>) -> Value<Scalar> {
    let shape = operands.query.shape
    return tape.attention(
      query: operands.query.reshaped([clipCount, frameCount * shape[1], shape[2]]),
      key: operands.key, value: operands.value, headCount: headCount
    ).reshaped(shape)
  }

  /// The tokens of each clip's first frame.
  /// - Shapes: [B·F, T, D] → [B, T, D].
  func firstFrames(of x: Value<Scalar>) -> Value<Scalar> {
    let (tokenCount, width) = (x.shape[1], x.shape[2])
    return tape.slice(
      x.reshaped([clipCount, frameCount * tokenCount, width]), along: 1, 0..<tokenCount)
  }
}
