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

  /// A query, key or value as soon as it is made.
  /// - Shapes: [B, L+T, N·K], or own tokens of both, or own heads of the group's.
  func operand(_ tape: Tape<Scalar>, _ x: Value<Scalar>) -> AttentionOperand<Scalar> {
    sequence?.operand(x, segments: segments, on: tape) ?? AttentionOperand(x)
  }

  /// - Shapes: → as what the operands were made of.
  func callAsFunction(
    _ tape: Tape<Scalar>, query: AttentionOperand<Scalar>, key: AttentionOperand<Scalar>,
    value: AttentionOperand<Scalar>
  ) -> Value<Scalar> {
    let (query, key, value) = (query.arrive(), key.arrive(), value.arrive())
    guard let sequence else {
      return tape.attention(
        query: query, key: key, value: value, headCount: headCount, mask: mask)
    }
    return sequence.attention(
      query: query, key: key, value: value, headCount: headCount, mask: mask,
      segments: segments, on: tape)
  }
}
