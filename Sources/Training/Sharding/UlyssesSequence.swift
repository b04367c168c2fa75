// Sequence parallelism by all-to-all (Ulysses): around attention, own tokens of all heads become all
// tokens of own heads, over the ranks of a group.
//
// With a ring outside, "all tokens" are those of the group's part of the ring, and attention to those of
// the other parts is the ring's.
// Source: DeepSpeed-Ulysses (2309.14509); the way back of an exchange is its inverse. Around a ring: USP
// (2405.07719) §3.2.

package import Autodiff
import Basics
package import DenseKernels
package import Exchange
import MeshLayout
package import Models
import ProcessMesh
import Tensors

package final class UlyssesSequence<Scalar: KernelScalar>: HeadExchange {
  private let group: TokenGroup<Scalar>
  private let ring: (any SequenceParallel<Scalar>)?
  package let plan: SequencePlan
  package let canonical: (any CanonicalSums<Scalar>)?

  /// - Parameters:
  ///   - exchange: over the ranks that share a sample's tokens, or a part of them.
  ///   - ring: who has the other parts; nil: nobody.
  ///   - plan: for networks with several attentions.
  ///   - canonical: how sums over tokens are made with the bits of one rank, over these ranks and those that cut
  ///     weights with them; without a ring.
  ///   - attempt: runs what may fail, and keeps the failure.
  package init(
    _ exchange: TokenExchange, inside ring: (any SequenceParallel<Scalar>)? = nil,
    plan: SequencePlan = .spatial, canonical: CanonicalTokens<Scalar>? = nil,
    attempt: @escaping (() throws -> Void) -> Void
  ) {
    require(canonical == nil || ring == nil, "canonical sums over the tokens of a ring")
    group = TokenGroup(exchange: exchange, attempt: attempt)
    self.canonical = canonical
    self.ring = ring
    self.plan = plan
  }

  package var degree: Int { group.degree }

  package var headExchange: (any HeadExchange<Scalar>)? { self }
  package var keyRing: (any KeyRing<Scalar>)? { ring?.keyRing }

  package var partCount: Int { group.degree * (ring?.partCount ?? 1) }

  package var headShare: (part: Int, partCount: Int) { (group.rank, group.degree) }

  package func stretch(of tokenCount: Int) -> Range<Int> { partRange(of: tokenCount) }

  package func ownRange(of tokenCount: Int) -> Range<Int> {
    let part = partRange(of: tokenCount)
    let own = group.ownRange(of: part.count)
    return part.lowerBound + own.lowerBound..<part.lowerBound + own.upperBound
  }

  /// Own tokens of all heads leave when an operand is made; all tokens of own heads are there when it arrives. On the
  /// way back their gradients leave behind the attention, each arrives before what made its operand is differentiated.
  /// - Precondition: the number of ranks divides the heads.
  package func operand(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> AttentionOperand<Scalar> {
    let layout = group.layout(x, segments.map { partRange(of: $0).count }, width: x.shape[2])
    let travel = HeadTravel(layout: layout, group: group)
    travel.leave(x.tensor.buffer)
    // Stands for what travels: it has no elements, only a place in the order of operations.
    let ticket = tape.record(tape.result([0]), from: [x]) {
      [shape = x.shape, unowned tape] _, gradients in
      guard let dx = gradients.place(of: 0) else { return }
      let back = dx.accumulates ? tape.scratch(shape).buffer : dx.buffer
      travel.arriveBack(into: back)
      if dx.accumulates { Scalar.add(1, back, to: dx.buffer) }
    }
    return AttentionOperand { [unowned tape] in
      let output = tape.result([layout.sampleCount, layout.tokenCount, layout.partWidth])
      travel.arrive(into: output.buffer)
      return tape.record(output, from: [ticket]) { outputGradient, gradients in
        _ = gradients.place(of: 0)
        travel.leaveBack(outputGradient.buffer)
      }
    }
  }

  package func attention(
    query: Value<Scalar>, key: Value<Scalar>, value: Value<Scalar>, headCount: Int,
    mask: AttentionMask?, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let ownHeadCount = headCount / group.degree
    let attended =
      ring?.attention(
        query: query, key: key, value: value, headCount: ownHeadCount, mask: mask,
        segments: segments, on: tape)
      ?? tape.attention(
        query: query, key: key, value: value, headCount: ownHeadCount, mask: mask)
    return gatherHeads(attended, segments: segments.map { partRange(of: $0).count }, on: tape)
  }

  package func gatherTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let part = group.gatherTokens(x, tokenCount: partRange(of: tokenCount).count, on: tape)
    return ring?.gatherTokens(part, tokenCount: tokenCount, on: tape) ?? part
  }

  package func shareTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    group.shareTokens(x, tokenCount: tokenCount, on: tape)
  }

  // MARK: Parts

  /// What the group has of a segment.
  private func partRange(of tokenCount: Int) -> Range<Int> {
    ring?.ownRange(of: tokenCount) ?? 0..<tokenCount
  }

  /// - Shapes: [B, l, N·K] → [B, L, N·K / size], L the tokens of the group.
  package func scatterHeads(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    group.scatterHeads(x, group.layout(x, segments, width: x.shape[2]), on: tape)
  }

  /// The inverse of `scatterHeads`.
  package func gatherHeads(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let layout = group.layout(x, segments, width: x.shape[2] * group.degree)
    let own = layout.tokenCount(of: group.rank)
    let exchange = group.exchange
    return group.record(
      x, [layout.sampleCount, own, layout.width], on: tape,
      forward: { try exchange.gatherHeads($0, layout: layout, into: $1) },
      backward: { try exchange.scatterHeads($0, layout: layout, into: $1) })
  }
}

/// An operand that travels between the ranks of a group, and its gradient on the way back.
private final class HeadTravel<Scalar: KernelScalar> {
  private let layout: TokenLayout
  private let group: TokenGroup<Scalar>
  /// There or back; nil after a failure.
  private var transfer: TokenTransfer?

  init(layout: TokenLayout, group: TokenGroup<Scalar>) {
    self.layout = layout
    self.group = group
  }

  private var exchange: TokenExchange { group.exchange }

  func leave(_ x: Buffer<Scalar>) {
    group.attempt { transfer = try exchange.startScatterHeads(x, layout: layout) }
  }

  func arrive(into y: Buffer<Scalar>) {
    guard let transfer = transfer.take() else { return }
    group.attempt { try exchange.finishScatterHeads(transfer, layout: layout, into: y) }
  }

  func leaveBack(_ dy: Buffer<Scalar>) {
    group.attempt { transfer = try exchange.startGatherHeads(dy, layout: layout) }
  }

  func arriveBack(into dx: Buffer<Scalar>) {
    guard let transfer = transfer.take() else { return }
    group.attempt { try exchange.finishGatherHeads(transfer, layout: layout, into: dx) }
  }
}
