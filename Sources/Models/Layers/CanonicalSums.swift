// The seam for sums whose bits do not depend on how many ranks share the tokens: what has tokens is summed in
// fixed blocks of them, what has none is computed by all ranks alike.
//
// What a sample has once (condition, modulations, the refiner's text) is on every rank, forward and back: its
// gradient is a sum over tokens that is completed over the ranks before it goes on. So its parameters have all of
// their gradient on every rank, and one rank counts it.
//
// Where ranks cut the weights of blocks too, tokens are cut over all of them, and what a block computes with meets the
// tokens of the group; sums over heads and hidden units are made in slices (`LayerScope.slices`), on one rank alike.
// Source: rule 2 of the specification of distributed systems, §6.

package import Autodiff
package import DenseKernels

/// One part's view of such sums. All operations differentiate.
package protocol CanonicalSums<Scalar>: AnyObject {
  associatedtype Scalar: KernelScalar

  /// Whether this rank counts what all ranks compute alike.
  var countsShared: Bool { get }

  /// Whether this rank counts its columns of a layer of what all ranks have alike.
  var countsColumns: Bool { get }

  /// The blocks of the own tokens of these segments, one segment after the other.
  /// - Parameter segments: tokens of each segment, all parts together.
  func blocks(of segments: [Int]) -> RowBlocks

  /// The blocks of the tokens that the ranks have which cut weights among them.
  func groupBlocks(of segments: [Int]) -> RowBlocks

  /// In how many slices sums over heads and hidden units are made, whoever has them.
  func sliceCount(heads: Int, hiddenUnits: Int) -> Int

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
  /// Those of layers of such values whose outputs ranks cut among them.
  var ofColumns: RowSums { .columns(isCounted: countsColumns) }
}

extension LayerScope {
  /// The same place for layers that run on own tokens of these segments; without such sums the place as it is.
  func over(_ segments: [Int]) -> LayerScope {
    guard let canonical else { return self }
    return with(.blocks(canonical.blocks(of: segments)))
  }

  /// The same for layers that run on the tokens of all ranks that cut their weights.
  func overGroup(_ segments: [Int]) -> LayerScope {
    guard let canonical else { return self }
    return with(.blocks(canonical.groupBlocks(of: segments)))
  }

  /// A value of each sample, for layers that run on its tokens.
  func shared(_ x: Value<Scalar>) -> Value<Scalar> { canonical?.shared(x, on: tape) ?? x }
}
