// The seam for sequence parallelism: a network runs on its own tokens and asks for all of them where it
// needs them, in attention and at its end. Who the others are, nobody here knows.
//
// All parts run the same operations in the same order. Gradients of parameters are then partial: those of the
// whole sequence are their sum over the parts.

package import Autodiff
package import DenseKernels

/// One part's view of a sequence that is cut among several. All operations differentiate.
package protocol SequenceParallel<Scalar>: AnyObject {
  associatedtype Scalar: KernelScalar

  /// The number of parts; it divides the number of heads.
  var degree: Int { get }
  /// Own tokens of a segment of `tokenCount`: contiguous, perhaps none.
  func ownRange(of tokenCount: Int) -> Range<Int>

  /// Own tokens of all heads → all tokens of own heads, in order.
  /// - Parameter segments: tokens of each segment; own tokens are the own ranges one after the other.
  /// - Shapes: [B, l, N·K] → [B, L, N·K / degree].
  func scatterHeads(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar>
  /// The inverse of `scatterHeads`.
  /// - Shapes: [B, L, N·K / degree] → [B, l, N·K].
  func gatherHeads(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar>
  /// Own tokens → all tokens of a segment. On the way back a part keeps the gradient of its own tokens: the
  /// same loss is taken of the result by all parts.
  /// - Shapes: [B, l, C] → [B, L, C].
  func gatherTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar>
}
