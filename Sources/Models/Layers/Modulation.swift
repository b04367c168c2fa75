// Shift, scale and gate of one stream of a block, for its attention and for its MLP.
//
// Source: DiT (2212.09748) §3.2, adaLN-zero; diffusers, `AdaLayerNormZero`, in the order of its chunks.

import Autodiff
import DenseKernels

struct Modulation<Scalar: KernelScalar> {
  private let tape: Tape<Scalar>
  private let parts: [Value<Scalar>]
  private let epsilon: Double
  private let segments: [Int]
  /// Over the tokens that are modulated.
  private let sums: RowSums

  /// - Parameters:
  ///   - condition: SiLU of the embedded condition, [B, D]. Streams of more than B samples are modulated
  ///     by stretches of equal length, one for each row of it.
  ///   - segments: of the stream, all ranks together; needed where ranks of a group cut the weights, and for
  ///     canonical sums.
  init(
    _ scope: LayerScope<Scalar>, _ name: String, _ condition: Value<Scalar>, epsilon: Double,
    _ segments: [Int] = []
  ) {
    tape = scope.tape
    parts = tape.chunks(scope.columns(name, condition), count: 6)
    self.epsilon = epsilon
    self.segments = segments
    sums = scope.over(segments).sums
  }

  func enterAttention(_ x: Value<Scalar>) -> Value<Scalar> {
    tape.layerNorm(x, scale: parts[1], shift: parts[0], epsilon: epsilon, sums: sums)
  }

  func leaveAttention(_ x: Value<Scalar>, _ attended: Value<Scalar>) -> Value<Scalar> {
    tape.gatedResidual(x, gate: parts[2], attended, sums: sums)
  }

  func mlp(_ scope: LayerScope<Scalar>, _ x: Value<Scalar>) -> Value<Scalar> {
    let scope = scope.overGroup(segments)
    let normalized = tape.layerNorm(
      x, scale: parts[4], shift: parts[3], epsilon: epsilon, sums: sums)
    let hidden = tape.apply(
      .geluTanh, to: scope.linear("net.0.proj", scope.gathered(normalized, segments)))
    return tape.gatedResidual(
      x, gate: parts[5], scope.rowLinear("net.2", parts: [hidden], segments), sums: sums)
  }
}
