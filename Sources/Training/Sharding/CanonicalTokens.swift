// Sums over tokens in fixed blocks, over the ranks that share the tokens, and the sequence of a rank that shares
// them with nobody and sums alike.
//
// What goes on from a sum over tokens is completed here, in the tree over ranks; sums that are gradients of
// parameters are completed by the reduction of gradients, whose lowest levels are the ranks of a group.

package import Autodiff
package import DenseKernels
import Exchange
import MeshLayout
package import Models
import Tensors

package final class CanonicalTokens<Scalar: KernelScalar>: CanonicalSums {
  /// Nil: one rank has all tokens.
  private let group: TokenGroup<Scalar>?

  init(_ group: TokenGroup<Scalar>?) { self.group = group }

  package var countsShared: Bool { (group?.rank ?? 0) == 0 }

  package func blocks(of segments: [Int]) -> RowBlocks {
    let own = TokenBlocks(
      segments: segments, part: group?.rank ?? 0, partCount: group?.degree ?? 1)
    return RowBlocks(tokenCount: own.tokenCount, blocks: own.blocks)
  }

  /// - Cost: sends the gradient of x to every peer on the way back, and holds that of every rank.
  package func shared(_ x: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar> {
    guard let group else { return x }
    let count = x.tensor.count
    // A token of each rank.
    let layout = TokenLayout(
      sampleCount: 1, segments: [group.degree], width: count, partCount: group.degree)
    return tape.record(x.tensor, from: [x]) { [unowned tape] outputGradient, gradients in
      guard let dx = gradients.place(of: 0) else { return }
      let parts = tape.scratch([group.degree, count])
      group.attempt {
        try group.exchange.gatherTokens(
          outputGradient.buffer, layout: layout, into: parts.buffer)
      }
      let sum = treeReduce(
        count: group.degree, operand: { parts.rows($0..<$0 + 1).buffer },
        combine: { left, right in
          Scalar.add(1, right, to: left)
          return left
        })
      if dx.accumulates { Scalar.add(1, sum, to: dx.buffer) } else { dx.buffer.copy(from: sum) }
    }
  }

  package func ownTokens(_ x: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar> {
    guard let group else { return x }
    let (tokenCount, width) = (x.shape[1], x.shape[2])
    let layout = group.layout(x, [tokenCount], width: width)
    let own = group.ownRange(of: tokenCount)
    return group.record(
      x, [x.shape[0], own.count, width], on: tape,
      forward: { all, result in
        let first = own.lowerBound * width
        Scalar.copyRows(
          all[first..<all.count], stride: tokenCount * width, to: result,
          stride: own.count * width, rowCount: layout.sampleCount, width: own.count * width)
      },
      backward: { try group.exchange.gatherTokens($0, layout: layout, into: $1) })
  }
}

/// All tokens on one rank, with canonical sums.
package final class WholeSequence<Scalar: KernelScalar>: SequenceParallel {
  package let canonical: (any CanonicalSums<Scalar>)? = CanonicalTokens<Scalar>(nil)

  package init() {}

  package var isWhole: Bool { true }
  package var partCount: Int { 1 }

  package func ownRange(of tokenCount: Int) -> Range<Int> { 0..<tokenCount }

  package func attention(
    query: Value<Scalar>, key: Value<Scalar>, value: Value<Scalar>, headCount: Int,
    mask: AttentionMask?, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    tape.attention(query: query, key: key, value: value, headCount: headCount, mask: mask)
  }

  package func gatherTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar> { x }
}
