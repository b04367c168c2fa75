// Tensor parallelism: the ranks of a group cut the weights of blocks and, between blocks, the tokens.
//
// With Ulysses or a ring outside, "all tokens" are those of the group, its attention of own heads is theirs,
// and Ulysses cuts the heads that the group's rank has once more.
// Source: Megatron-LM (1909.08053) §3; 2205.05198 §4.2.2, where the operations g and ḡ are `gather` and
// `scatterSum`, each the way back of the other.

package import Autodiff
package import DenseKernels
package import Exchange
import MeshLayout
package import Models
import ProcessMesh
import Tensors

package final class TensorSequence<Scalar: KernelScalar>: TensorParallel {
  private let group: TokenGroup<Scalar>
  private let outer: (any SequenceParallel<Scalar>)?

  /// - Parameters:
  ///   - exchange: over the ranks that cut the weights among them.
  ///   - outer: who has the tokens of other groups; nil: nobody.
  ///   - attempt: runs what may fail, and keeps the failure.
  package init(
    _ exchange: TokenExchange, inside outer: (any SequenceParallel<Scalar>)? = nil,
    attempt: @escaping (() throws -> Void) -> Void
  ) {
    group = TokenGroup(exchange: exchange, attempt: attempt)
    self.outer = outer
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
    let range = groupRange(of: tokenCount)
    let own = group.ownRange(of: range.count)
    return range.lowerBound + own.lowerBound..<range.lowerBound + own.upperBound
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
    let range = groupRange(of: tokenCount)
    let part = group.gatherTokens(x, tokenCount: range.count, on: tape)
    return outer?.gatherTokens(part, tokenCount: tokenCount, on: tape) ?? part
  }

  /// The gathered tokens are not kept for the way back but gathered again there (2205.05198 §4.2.2), unless that
  /// follows at once.
  package func gather(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let layout = group.layout(x, groupSegments(segments), width: x.shape[2])
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
    group.sumTokens(
      x, group.layout(x, groupSegments(segments), width: x.shape[2]), on: tape)
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

  /// Columns of a sample travel as if each part of them were a token.
  package func gatherColumns(_ x: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar> {
    let (sampleCount, width) = (x.shape[0], x.shape[1])
    let tokens = x.reshaped([sampleCount, 1, width])
    return group.shareTokens(tokens, tokenCount: degree, on: tape)
      .reshaped([sampleCount, degree * width])
  }

  // MARK: Parts

  /// What the group has of the segments.
  private func groupSegments(_ segments: [Int]) -> [Int] {
    segments.map { groupRange(of: $0).count }
  }
}
