// Sums over tokens in fixed blocks, over the ranks that share the tokens, and the sequence of a rank that shares
// them with nobody and sums alike.
//
// What goes on from a sum over tokens is completed here, in the tree over ranks; sums that are gradients of
// parameters are completed by the reduction of gradients, whose lowest levels are the ranks of a group. Ranks that cut
// the weights of blocks are neighbors in it, so their tokens are neighbors too.

package import Autodiff
package import DenseKernels
package import Exchange
import MeshLayout
package import Models
import Tensors

package final class CanonicalTokens<Scalar: KernelScalar>: CanonicalSums {
  /// Nil: one rank has all tokens.
  private let group: TokenGroup<Scalar>?
  /// How many neighbors of the group cut weights among them.
  private let tensorDegree: Int

  init(_ group: TokenGroup<Scalar>? = nil, tensorDegree: Int = 1) {
    self.group = group
    self.tensorDegree = tensorDegree
  }

  /// - Parameters:
  ///   - exchange: over the ranks that share a sample's tokens; those that cut weights among them are neighbors.
  ///   - attempt: runs what may fail, and keeps the failure.
  package convenience init(
    _ exchange: TokenExchange, tensorDegree: Int = 1,
    attempt: @escaping (() throws -> Void) -> Void
  ) {
    self.init(TokenGroup(exchange: exchange, attempt: attempt), tensorDegree: tensorDegree)
  }

  private var rank: Int { group?.rank ?? 0 }
  private var degree: Int { group?.degree ?? 1 }

  package var countsShared: Bool { rank == 0 }
  package var countsColumns: Bool { rank < tensorDegree }

  package func blocks(of segments: [Int]) -> RowBlocks {
    blocks(of: segments, part: rank, partCount: degree)
  }

  package func groupBlocks(of segments: [Int]) -> RowBlocks {
    blocks(of: segments, part: rank / tensorDegree, partCount: degree / tensorDegree)
  }

  private func blocks(of segments: [Int], part: Int, partCount: Int) -> RowBlocks {
    let own = TokenBlocks(segments: segments, part: part, partCount: partCount)
    return RowBlocks(tokenCount: own.tokenCount, blocks: own.blocks)
  }

  package func sliceCount(heads: Int, hiddenUnits: Int) -> Int {
    MeshLayout.sliceCount(heads: heads, hiddenUnits: hiddenUnits)
  }

  /// - Cost: sends the gradient of x to every peer on the way back, and holds that of every rank.
  package func shared(_ x: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar> {
    guard let group else { return x }
    return tape.record(x.tensor, from: [x]) { [unowned tape] outputGradient, gradients in
      guard let dx = gradients.place(of: 0) else { return }
      group.sumEverywhere(outputGradient.buffer, into: dx, on: tape)
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
  package let canonical: (any CanonicalSums<Scalar>)? = CanonicalTokens<Scalar>()

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
