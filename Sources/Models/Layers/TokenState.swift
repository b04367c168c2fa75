// What blocks hand on to each other, and stages of a pipeline: tokens, and what modulates them.

import Autodiff
import DenseKernels

/// What blocks pass on.
struct TokenState<Scalar: KernelScalar> {
  /// Video or image tokens and those of the text, or both in one; own tokens where the sequence is cut. HunyuanVideo:
  /// [B, L, D] and [B, T, D], from the first block of one stream on [B, L+T, D]. Vchitect-2.0: [B·F, S, D] and
  /// [B·F, T, D], behind the last block the first of them alone.
  let streams: [Value<Scalar>]
  /// SiLU of the embedded time, text and, where there is one, guidance: [B, D].
  let condition: Value<Scalar>

  init(streams: [Value<Scalar>], condition: Value<Scalar>) {
    self.streams = streams
    self.condition = condition
  }

  /// The state that has these `values`.
  init(_ values: [Value<Scalar>]) {
    self.init(streams: Array(values.dropLast()), condition: values[values.count - 1])
  }

  var values: [Value<Scalar>] { streams + [condition] }

  /// The same, for who lets go of the state.
  consuming func taken() -> [Value<Scalar>] { values }
}
