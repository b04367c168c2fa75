// The seam for tensor parallelism: inside a block a rank computes with its part of the weights on the tokens of
// all ranks of a group; between blocks, and in norms and modulations, with its tokens only.
//
// Column-parallel layers (queries, keys, values by heads, the MLP's hidden units, modulations) hold rows of
// [out, in] and need no more than gathered inputs. Row-parallel ones hold columns: what they give is a part of
// a sum. What all ranks have whole (norms, biases of row-parallel layers, one factor of each adapter) gets a
// part of its gradient on each; what is cut gets all of it on one. So the sum over all ranks is right.
// Source: Megatron-LM (1909.08053) §3; norms on own tokens: sequence parallelism (2205.05198) §4.2.

package import Autodiff

/// One rank's view of blocks whose weights are cut among several. All operations differentiate.
///
/// `attention` is that of own heads over the tokens of the group.
package protocol TensorParallel<Scalar>: SequenceParallel {
  /// How many ranks cut the weights. It divides heads and hidden units.
  var degree: Int { get }

  /// Tokens of a segment that the group has: contiguous.
  func groupRange(of tokenCount: Int) -> Range<Int>

  /// Own tokens → the group's. On the way back what all ranks found is summed.
  /// - Parameter segments: tokens of each segment over all groups.
  /// - Shapes: [B, own tokens, C] → [B, group's tokens, C].
  func gather(_ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>) -> Value<Scalar>

  /// The sum of what all ranks found for the group's tokens → own tokens: the adjoint of `gather`.
  /// - Shapes: [B, group's tokens, C] → [B, own tokens, C].
  func scatterSum(_ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>) -> Value<Scalar>

  /// The sum of what all ranks found for the group's tokens → own columns of it.
  /// - Shapes: [B, group's tokens, C] → [B, group's tokens, C / degree].
  func scatterColumns(_ x: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar>

  /// Own tokens of all columns → the group's tokens of own columns.
  /// - Parameter segments: as for `gather`.
  /// - Shapes: [B, own tokens, C] → [B, group's tokens, C / degree].
  func turnedToColumns(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar>

  /// Own columns → all columns. On the way back what all ranks found is summed; with canonical sums, where all found
  /// the same, the own columns of it are taken.
  /// - Shapes: [B, C / degree] → [B, C].
  func gatherColumns(_ x: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar>

  /// Between own tokens of so many samples and the group's, for sums in slices.
  func tokenSlices(
    sampleCount: Int, segments: [Int], on tape: Tape<Scalar>
  ) -> SliceExchange<Scalar>

  /// The same of values of each sample, which all ranks have and of which all need the sums.
  func sampleSlices(sampleCount: Int, on tape: Tape<Scalar>) -> SliceExchange<Scalar>
}

extension LayerScope {
  /// Own tokens → the tokens that column-parallel layers run on. With slices, linear layers alone read the result.
  func gathered(_ x: Value<Scalar>, _ segments: [Int]) -> Value<Scalar> {
    guard let slices = tokenSlices(x.shape[0], segments) else {
      return tensor?.gather(x, segments: segments, on: tape) ?? x
    }
    return tape.columnInput(x, slices, ownSums: over(segments).sums)
  }

  /// A column-parallel layer of a value of each sample → all outputs, for layers that run on its tokens.
  func columns(_ name: String, _ x: Value<Scalar>) -> Value<Scalar> {
    guard let slices, let canonical else { return shared(joined(linear(name, x))) }
    let read = tape.columnInput(
      x,
      WeightSlices(
        count: slices / tensorDegree,
        exchange: tensor?.sampleSlices(sampleCount: x.shape[0], on: tape)), ownSums: sums)
    return shared(joined(with(canonical.ofColumns).linear(name, read)))
  }

  /// The own slices of layers on tokens of these segments; nil where sums are not made in slices.
  func tokenSlices(_ sampleCount: Int, _ segments: [Int]) -> WeightSlices<Scalar>? {
    slices.map {
      WeightSlices(
        count: $0 / tensorDegree,
        exchange: tensor?.tokenSlices(sampleCount: sampleCount, segments: segments, on: tape))
    }
  }

  /// How many ranks cut weights.
  private var tensorDegree: Int { tensor?.degree ?? 1 }

  /// The outputs of a column-parallel layer → all of them.
  func joined(_ x: Value<Scalar>) -> Value<Scalar> { tensor?.gatherColumns(x, on: tape) ?? x }

  /// A row-parallel layer: own inputs of the group's tokens → all outputs of the own tokens.
  func rowLinear(
    _ name: String, parts: [Value<Scalar>], _ segments: [Int]
  ) -> Value<Scalar> {
    if let slices = tokenSlices(parts[0].shape[0], segments) {
      return rowLinear([(name, parts)], slices, ownSums: over(segments).sums)
    }
    guard let tensor else { return linear(name, parts: parts) }
    let partial = linear(name, parts: parts, hasBias: false)
    return tape.add(
      tensor.scatterSum(partial, segments: segments, on: tape), bias: parameter(name + ".bias"))
  }
}
