// Sequence parallelism by ring attention: every rank keeps its queries, and the keys and values of all
// ranks pass by.
//
// Blocks of keys arrive in another order on every rank, but what they give is joined in one tree over
// the ranks that they belong to; gradients of queries are summed in the order of arrival, the own block
// first, those of keys and values on the way home (`TokenExchange.circulate`). All of it is fixed, so equal
// runs give equal bits; other degrees give others.
// Source: Ring Attention (2310.01889) §3; the partial results are those of FlashAttention-2 (2307.08691).

package import Autodiff
package import DenseKernels
package import Exchange
import MeshLayout
package import Models
import ProcessMesh
import Tensors

package final class RingSequence<Scalar: KernelScalar>: KeyRing {
  private let group: TokenGroup<Scalar>

  /// - Parameters:
  ///   - exchange: over the ranks of the ring.
  ///   - attempt: runs what may fail, and keeps the failure.
  package init(_ exchange: TokenExchange, attempt: @escaping (() throws -> Void) -> Void) {
    group = TokenGroup(exchange: exchange, attempt: attempt)
  }

  package var keyRing: (any KeyRing<Scalar>)? { self }
  package var partCount: Int { group.degree }

  package func ownRange(of tokenCount: Int) -> Range<Int> { group.ownRange(of: tokenCount) }

  package func gatherTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    group.gatherTokens(x, tokenCount: tokenCount, on: tape)
  }

  package func shareTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    group.shareTokens(x, tokenCount: tokenCount, on: tape)
  }

  /// - Cost: two blocks of keys and values beside the own ones (four on the way back), and up to
  ///   2 log₂(size) + 2 partial outputs.
  package func attention(
    query: Value<Scalar>, key: Value<Scalar>, value: Value<Scalar>, headCount: Int,
    mask: AttentionMask?, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let blocks = KeyBlocks<Scalar>(
      layout: group.layout(key, segments, width: key.shape[2]), queryCount: query.shape[1],
      headCount: headCount, mask: mask)
    let exchange = group.exchange
    let own = KeysAndValues(keys: key.tensor.buffer, values: value.tensor.buffer)
    var tree = ArrivalTree<PartialAttention<Scalar>?>(count: group.degree)
    group.attempt {
      try exchange.circulate(
        own, elementCounts: blocks.elementCounts, room: blocks.room(on: tape)
      ) { part, block in
        tree.insert(
          blocks.attend(query, to: block, of: part, on: tape), at: part, combine: blocks.join)
      }
    }
    let (output, logSumExp) =
      (tree.result ?? nil).map { ($0.output, $0.logSumExp) }
      ?? blocks.nothing(of: query, on: tape)
    return tape.record(output, from: [query, key, value]) {
      [attempt = group.attempt, unowned tape] outputGradient, gradients in
      func place(_ index: Int, _ value: Value<Scalar>) -> GradientBuffer<Scalar> {
        gradients.place(of: index)
          ?? GradientBuffer(tape.scratch(value.shape).buffer, accumulates: false)
      }
      let (dq, dk, dv) = (place(0, query), place(1, key), place(2, value))
      attempt {
        try exchange.circulate(
          own, gradients: KeysAndValues(keys: dk.buffer, values: dv.buffer),
          elementCounts: blocks.elementCounts, room: blocks.room(on: tape),
          sums: blocks.room(on: tape)
        ) { part, block, found in
          blocks.differentiate(
            part: part, block, outputGradient: outputGradient.buffer, query: query.tensor.buffer,
            output: output.buffer, logSumExp: logSumExp.buffer, precision: tape.precision,
            // The own block comes first.
            queryGradient: GradientBuffer(
              dq.buffer, accumulates: dq.accumulates || found != nil),
            keyGradient: found.map { GradientBuffer($0.keys, accumulates: false) } ?? dk,
            valueGradient: found.map { GradientBuffer($0.values, accumulates: false) } ?? dv)
        }
      }
    }
  }
}

/// Attention of the own queries to the keys of some ranks.
private struct PartialAttention<Scalar: KernelScalar> {
  /// [B, l, N·K].
  let output: Tensor<Scalar>
  /// [B, N, l].
  let logSumExp: Tensor<Scalar>
}

/// The tokens of a ring as blocks of keys, and what one of them does for the own queries.
private struct KeyBlocks<Scalar: KernelScalar> {
  typealias Partial = PartialAttention<Scalar>

  /// Elements of keys of every rank.
  let elementCounts: [Int]
  private let shapes: [AttentionShape]
  /// Of every block; nil where all its keys may be seen.
  private let masks: [AttentionMask?]

  init(layout: TokenLayout, queryCount: Int, headCount: Int, mask: AttentionMask?) {
    let ranks = 0..<layout.partCount
    let tokenCounts = ranks.map(layout.tokenCount(of:))
    elementCounts = tokenCounts.map { layout.sampleCount * $0 * layout.width }
    masks = ranks.map { mask?.keys(layout.ranges(of: $0), of: layout.tokenCount) }
    shapes = tokenCounts.map {
      AttentionShape(
        sampleCount: layout.sampleCount, queryCount: queryCount, keyCount: $0,
        headCount: headCount, headWidth: layout.width / headCount)
    }
  }

  /// Room for any block; none is needed where there is no other.
  func room(on tape: Tape<Scalar>) -> KeysAndValues<Scalar> {
    let count = elementCounts.count == 1 ? 0 : elementCounts.max() ?? 0
    return KeysAndValues(
      keys: tape.scratch([count]).buffer, values: tape.scratch([count]).buffer)
  }

  /// Nil where there is no key or no query.
  func attend(
    _ query: Value<Scalar>, to block: KeysAndValues<Scalar>, of part: Int, on tape: Tape<Scalar>
  ) -> Partial? {
    let shape = shapes[part]
    guard shape.queryCount > 0, shape.keyCount > 0 else { return nil }
    let output = tape.result(query.shape)
    let logSumExp = tape.result([shape.sampleCount, shape.headCount, shape.queryCount])
    Scalar.attention(
      query: query.tensor.buffer, key: block.keys, value: block.values, mask: masks[part],
      shape: shape, precision: tape.precision, into: output.buffer, logSumExp: logSumExp.buffer)
    return Partial(output: output, logSumExp: logSumExp)
  }

  /// - Returns: `left`, into which `right` has been joined.
  func join(_ left: Partial?, _ right: Partial?) -> Partial? {
    guard let left, let right else { return left ?? right }
    Scalar.joinAttention(
      output: right.output.buffer, logSumExp: right.logSumExp.buffer, shape: shapes[0],
      to: left.output.buffer, logSumExp: left.logSumExp.buffer)
    return left
  }

  /// What queries have where there is no key, or after a failure.
  func nothing(
    of query: Value<Scalar>, on tape: Tape<Scalar>
  ) -> (output: Tensor<Scalar>, logSumExp: Tensor<Scalar>) {
    let rowCount = shapes[0].sampleCount * shapes[0].headCount * shapes[0].queryCount
    return (tape.result(query.shape, zeroed: true), tape.result([rowCount], zeroed: true))
  }

  func differentiate(
    part: Int, _ block: KeysAndValues<Scalar>, outputGradient: Buffer<Scalar>,
    query: Buffer<Scalar>, output: Buffer<Scalar>, logSumExp: Buffer<Scalar>,
    precision: ProductPrecision, queryGradient: GradientBuffer<Scalar>,
    keyGradient: GradientBuffer<Scalar>, valueGradient: GradientBuffer<Scalar>
  ) {
    let shape = shapes[part]
    guard shape.queryCount > 0, shape.keyCount > 0 else {
      // Nothing is added; what was to be overwritten becomes zero.
      for gradient in [queryGradient, keyGradient, valueGradient] { _ = gradient.addend }
      return
    }
    Scalar.attentionBackward(
      outputGradient: outputGradient, query: query, key: block.keys, value: block.values,
      output: output, logSumExp: logSumExp, mask: masks[part], shape: shape, precision: precision,
      queryGradient: queryGradient, keyGradient: keyGradient, valueGradient: valueGradient)
  }
}
