// The attention of all blocks over video and text, on all tokens or on a part of them.

import Autodiff
import DenseKernels

struct JointAttention<Scalar: KernelScalar> {
  /// Own heads where the weights are cut among ranks.
  let headCount: Int
  let mask: AttentionMask?
  /// Video and text tokens of a sample, all parts together.
  let segments: [Int]
  let sequence: (any SequenceParallel<Scalar>)?

  /// - Shapes: query, key, value [B, L+T, N·K], or own tokens of both, or own heads of the group's → the same.
  func callAsFunction(
    _ tape: Tape<Scalar>, query: Value<Scalar>, key: Value<Scalar>, value: Value<Scalar>
  ) -> Value<Scalar> {
    guard let sequence else {
      return tape.attention(
        query: query, key: key, value: value, headCount: headCount, mask: mask)
    }
    return sequence.attention(
      query: query, key: key, value: value, headCount: headCount, mask: mask,
      segments: segments, on: tape)
  }
}
