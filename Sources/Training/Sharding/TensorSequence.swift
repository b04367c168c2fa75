// Tensor parallelism: the ranks of a group cut the weights of blocks and, between blocks, the tokens.
//
// With Ulysses or a ring outside, "all tokens" are those of the group, its attention of own heads is theirs,
// and Ulysses cuts the heads that the group's rank has once more.
// The tokens that Ulysses cuts are cut over both at once, so that with canonical sums each rank has whole blocks of them.
// Source: Megatron-LM (1909.08053) §3; 2205.05198 §4.2.2, where the operations g and ḡ are `gather` and
// `scatterSum`, each the way back of the other.

package import Autodiff
import Basics
package import DenseKernels
package import Exchange
import MeshLayout
package import Models
import ProcessMesh
import Tensors

package final class TensorSequence<Scalar: KernelScalar>: TensorParallel {
  private let group: TokenGroup<Scalar>
  private let outer: (any SequenceParallel<Scalar>)?
  package let canonical: (any CanonicalSums<Scalar>)?

  /// - Parameters:
  ///   - exchange: over the ranks that cut the weights among them.
  ///   - outer: who has the tokens of other groups; nil: nobody.
  ///   - canonical: how sums have the bits of one rank, over these ranks and those of the outer sequence.
  ///   - attempt: runs what may fail, and keeps the failure.
  package init(
    _ exchange: TokenExchange, inside outer: (any SequenceParallel<Scalar>)? = nil,
    canonical: CanonicalTokens<Scalar>? = nil,
    attempt: @escaping (() throws -> Void) -> Void
  ) {
    group = TokenGroup(exchange: exchange, attempt: attempt)
    self.outer = outer
    self.canonical = canonical
  }

  package var tensor: (any TensorParallel<Scalar>)? { self }
  /// Of the heads that the rank has of the group's tokens.
  package var headExchange: (any HeadExchange<Scalar>)? { outer?.headExchange }
  package var keyRing: (any KeyRing<Scalar>)? { outer?.keyRing }
  package var degree: Int { group.degree }

  package func groupRange(of tokenCount: Int) -> Range<Int> {
    outer?.ownRange(of: tokenCount) ?? 0..<tokenCount
  }

  package var partCount: Int { group.degree * (outer?.partCount ?? 1) }

  package func ownRange(of tokenCount: Int) -> Range<Int> {
    let start = groupRange(of: tokenCount).lowerBound
    let own = layout(1, [tokenCount], width: 1).ranges(of: group.rank)[0]
    return start + own.lowerBound..<start + own.upperBound
  }

  package func operand(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> AttentionOperand<Scalar> {
    outer?.operand(x, segments: segments, on: tape) ?? AttentionOperand(x)
  }

  /// - Shapes: operands of [B, group's tokens, own heads · K] → the same.
  package func attention(
    query: Value<Scalar>, key: Value<Scalar>, value: Value<Scalar>, headCount: Int,
    mask: AttentionMask?, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    outer?.attention(
      query: query, key: key, value: value, headCount: headCount, mask: mask,
      segments: segments, on: tape)
      ?? tape.attention(
        query: query, key: key, value: value, headCount: headCount, mask: mask)
  }

  package func gatherTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let part = group.gatherTokens(
      x, layout(x.shape[0], [tokenCount], width: x.shape[2]), on: tape)
    return outer?.gatherTokens(part, tokenCount: tokenCount, on: tape) ?? part
  }

  /// The gathered tokens are not kept for the way back but gathered again there (2205.05198 §4.2.2), unless that
  /// follows at once.
  package func gather(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let layout = layout(x.shape[0], segments, width: x.shape[2])
    let gathered = group.shareTokens(x, layout, on: tape)
    guard tape.isRecording, !tape.isRecomputing else { return gathered }
    let own = x.tensor
    return gathered.remade { [group, shape = gathered.shape, unowned tape] in
      let again = tape.result(shape)
      group.attempt {
        try group.exchange.gatherTokens(own.buffer, layout: layout, into: again.buffer)
      }
      return again
    }
  }

  package func scatterSum(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    group.sumTokens(x, layout(x.shape[0], segments, width: x.shape[2]), on: tape)
  }

  package func scatterColumns(_ x: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar> {
    let width = x.shape[2]
    let rowCount = x.shape[0] * x.shape[1]
    return group.record(
      x, [x.shape[0], x.shape[1], width / degree], on: tape,
      forward: { [group] in
        try group.exchange.reduceColumns(
          $0, rowCount: rowCount, into: $1, room: tape.scratch([$1.count]).buffer)
      },
      backward: { [group] in
        try group.exchange.gatherColumns($0, rowCount: rowCount, into: $1)
      })
  }

  package func turnedToColumns(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    group.scatterHeads(x, layout(x.shape[0], segments, width: x.shape[2]), on: tape)
  }

  /// Columns of a sample travel as if each part of them were a token.
  package func gatherColumns(_ x: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar> {
    let (sampleCount, width) = (x.shape[0], x.shape[1])
    let tokens = x.reshaped([sampleCount, 1, width])
    let gathered =
      canonical == nil
      ? group.shareTokens(tokens, tokenCount: degree, on: tape)
      : group.gatherTokens(tokens, tokenCount: degree, on: tape)
    return gathered.reshaped([sampleCount, degree * width])
  }

  // MARK: Slices

  package func tokenSlices(
    sampleCount: Int, segments: [Int], on tape: Tape<Scalar>
  ) -> SliceExchange<Scalar> {
    let counts = layout(sampleCount, segments, width: 1)
    let rowCount = sampleCount * counts.tokenCount
    let blockCount = TokenBlocks.count / place.partCount
    // Of so many elements of all rows; a group without tokens exchanges nothing.
    func layoutOf(_ count: Int) -> TokenLayout {
      self.layout(sampleCount, segments, width: rowCount == 0 ? 0 : count / rowCount)
    }
    return SliceExchange(
      degree: degree, ownShape: [sampleCount, counts.tokenCount(of: group.rank)],
      shape: [sampleCount, counts.tokenCount],
      gather: { [group] own, all in
        group.attempt {
          try group.exchange.gatherTokens(own, layout: layoutOf(all.count), into: all)
        }
      },
      sum: { [group, unowned tape] all, own in
        group.attempt { try group.reduceTokens(all, layoutOf(all.count), into: own, on: tape) }
      },
      sumBlocks: { [group, unowned tape] all, own in
        let layout = TokenLayout(
          sampleCount: 1, segments: [blockCount], width: all.count / blockCount,
          partCount: group.degree)
        group.attempt { try group.reduceTokens(all, layout, into: own, on: tape) }
      })
  }

  package func sampleSlices(
    sampleCount: Int, on tape: Tape<Scalar>
  ) -> SliceExchange<Scalar> {
    SliceExchange(
      degree: degree, ownShape: [sampleCount], shape: [sampleCount],
      gather: { own, all in all.copy(from: own) },
      sum: { [group, unowned tape] all, own in
        group.sumEverywhere(all, into: GradientBuffer(own, accumulates: false), on: tape)
      }, sumBlocks: { _, _ in trap("blocks of tokens of what a sample has once") })
  }

  // MARK: Parts

  /// Which of the ranks that exchange tokens against heads this group is in the place of.
  private var place: (part: Int, partCount: Int) { outer?.headShare ?? (0, 1) }

  /// The group's tokens of these segments, whose cut is that of the ranks of all groups.
  private func layout(_ sampleCount: Int, _ segments: [Int], width: Int) -> TokenLayout {
    let (part, partCount) = place
    return TokenLayout(
      sampleCount: sampleCount,
      stretches: segments.map { outer?.stretch(of: $0).count ?? $0 }, piece: part,
      pieceCount: partCount, width: width, partCount: degree)
  }
}
