// The seam for sums whose bits do not depend on how many ranks share the tokens: what has tokens is summed in
// fixed blocks of them, what has none is computed by all ranks alike.
//
// What a sample has once (condition, modulations, the refiner's text) is on every rank, forward and back: its
// gradient is a sum over tokens that is completed over the ranks before it goes on. So its parameters have all of
// their gradient on every rank, and one rank counts it.
// Source: rule 2 of the specification of distributed systems, §6.

package import Autodiff
package import DenseKernels

/// One part's view of such sums. All operations differentiate.
package protocol CanonicalSums<Scalar>: AnyObject {
  associatedtype Scalar: KernelScalar

  /// Whether this rank counts what all ranks compute alike.
  var countsShared: Bool { get }

  /// The blocks of the own tokens of these segments, one segment after the other.
  /// - Parameter segments: tokens of each segment, all parts together.
  func blocks(of segments: [Int]) -> RowBlocks

  /// What all ranks have alike and go on with for their own tokens. On the way back the gradients that they find
  /// meet in the tree.
  func shared(_ x: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar>

  /// All tokens → own tokens. On the way back the gradients of all tokens come together again.
  /// - Shapes: [B, L, C] → [B, l, C].
  func ownTokens(_ x: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar>
}

extension CanonicalSums {
  /// Gradients of what all ranks compute alike.
  var ofShared: RowSums { countsShared ? .whole : .countedElsewhere }
}

extension LayerScope {
  /// The same place for layers that run on own tokens of these segments; without such sums the place as it is.
  func over(_ segments: [Int]) -> LayerScope {
    guard let canonical else { return self }
    return with(.blocks(canonical.blocks(of: segments)))
  }

  /// A value of each sample, for layers that run on its tokens.
  func shared(_ x: Value<Scalar>) -> Value<Scalar> { canonical?.shared(x, on: tape) ?? x }
}
