// The ranks of one axis that share the tokens of a sample: what Ulysses, the ring and tensor parallelism have
// in common.
//
// Passes of a network cannot throw. What fails in an exchange is handed to `attempt`, which keeps it for
// the next agreement of the ranks; until then the numbers mean nothing and nothing of them is saved.

import Autodiff
import DenseKernels
import Exchange
import MeshLayout
import ProcessMesh
import Tensors

struct TokenGroup<Scalar: KernelScalar> {
  let exchange: TokenExchange
  /// Runs what may fail, and keeps the failure.
  let attempt: (() throws -> Void) -> Void

  var degree: Int { exchange.transport.size }
  var rank: Int { exchange.transport.rank }

  func ownRange(of tokenCount: Int) -> Range<Int> {
    evenRange(of: tokenCount, part: rank, partCount: degree)
  }

  func layout(_ x: Value<Scalar>, _ segments: [Int], width: Int) -> TokenLayout {
    TokenLayout(sampleCount: x.shape[0], segments: segments, width: width, partCount: degree)
  }

  /// Own tokens → all tokens of the group, with which every rank goes on in its own way; on the way back
  /// the sum of what all ranks have for the own tokens.
  /// - Shapes: [B, l, C] → [B, L, C].
  func shareTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    shareTokens(x, layout(x, [tokenCount], width: x.shape[2]), on: tape)
  }

  func shareTokens(
    _ x: Value<Scalar>, _ layout: TokenLayout, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    record(
      x, [layout.sampleCount, layout.tokenCount, layout.width], on: tape,
      forward: { try exchange.gatherTokens($0, layout: layout, into: $1) },
      backward: { [self, unowned tape] in try reduceTokens($0, layout, into: $1, on: tape) })
  }

  /// What all ranks found for the tokens of the group → own tokens: the adjoint of `shareTokens`.
  /// - Shapes: [B, L, C] → [B, l, C].
  func sumTokens(
    _ x: Value<Scalar>, _ layout: TokenLayout, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    record(
      x, [layout.sampleCount, layout.tokenCount(of: rank), layout.width], on: tape,
      forward: { try reduceTokens($0, layout, into: $1, on: tape) },
      backward: { [exchange] in try exchange.gatherTokens($0, layout: layout, into: $1) })
  }

  /// Own tokens of all heads, or columns → the group's tokens of own ones.
  /// - Shapes: [B, l, C] → [B, L, C / degree].
  func scatterHeads(
    _ x: Value<Scalar>, _ layout: TokenLayout, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    record(
      x, [layout.sampleCount, layout.tokenCount, layout.partWidth], on: tape,
      forward: { [exchange] in try exchange.scatterHeads($0, layout: layout, into: $1) },
      backward: { [exchange] in try exchange.gatherHeads($0, layout: layout, into: $1) })
  }

  /// Own tokens → all tokens of the group; on the way back the gradient of the own tokens.
  /// - Shapes: [B, l, C] → [B, L, C].
  func gatherTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    gatherTokens(x, layout(x, [tokenCount], width: x.shape[2]), on: tape)
  }

  /// - Precondition: the layout has one segment.
  func gatherTokens(
    _ x: Value<Scalar>, _ layout: TokenLayout, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let (sampleCount, tokenCount, width) = (x.shape[0], layout.tokenCount, x.shape[2])
    let own = layout.ranges(of: rank)[0]
    let output = tape.result([sampleCount, tokenCount, width])
    attempt { try exchange.gatherTokens(x.tensor.buffer, layout: layout, into: output.buffer) }
    return tape.record(output, from: [x]) { outputGradient, gradients in
      guard let dx = gradients.place(of: 0), !own.isEmpty else { return }
      let move = dx.accumulates ? Scalar.addRows : Scalar.copyRows
      let first = own.lowerBound * width
      move(
        outputGradient.buffer[first..<outputGradient.count], tokenCount * width, dx.buffer,
        own.count * width, sampleCount, own.count * width)
    }
  }

  /// An exchange of x for a tensor of `shape`, and the one that is its way back.
  func record(
    _ x: Value<Scalar>, _ shape: [Int], on tape: Tape<Scalar>,
    forward: (Buffer<Scalar>, Buffer<Scalar>) throws -> Void,
    backward: @escaping (Buffer<Scalar>, Buffer<Scalar>) throws -> Void
  ) -> Value<Scalar> {
    let output = tape.result(shape)
    attempt { try forward(x.tensor.buffer, output.buffer) }
    // Of the input only its shape is kept.
    return tape.record(output, from: [x]) {
      [attempt, inputShape = x.shape, unowned tape] outputGradient, gradients in
      guard let dx = gradients.place(of: 0) else { return }
      let back = dx.accumulates ? tape.scratch(inputShape).buffer : dx.buffer
      attempt { try backward(outputGradient.buffer, back) }
      if dx.accumulates { Scalar.add(1, back, to: dx.buffer) }
    }
  }

  func reduceTokens(
    _ y: Buffer<Scalar>, _ layout: TokenLayout, into x: Buffer<Scalar>, on tape: Tape<Scalar>
  ) throws {
    try exchange.reduceTokens(
      y, layout: layout, into: x,
      room: tape.scratch([heldPartialCount(ofTree: degree), x.count]).buffer)
  }

  /// The sum over the ranks of what each has, in the tree, on every rank.
  /// - Cost: sends x to every peer, and holds that of every rank.
  func sumEverywhere(
    _ x: Buffer<Scalar>, into sum: GradientBuffer<Scalar>, on tape: Tape<Scalar>
  ) {
    // A token of each rank.
    let layout = TokenLayout(
      sampleCount: 1, segments: [degree], width: x.count, partCount: degree)
    let parts = tape.scratch([degree, x.count])
    attempt { try exchange.gatherTokens(x, layout: layout, into: parts.buffer) }
    let total = treeReduce(
      count: degree, operand: { parts.rows($0..<$0 + 1).buffer },
      combine: { left, right in
        Scalar.add(1, right, to: left)
        return left
      })
    if sum.accumulates {
      Scalar.add(1, total, to: sum.buffer)
    } else {
      sum.buffer.copy(from: total)
    }
  }
}
