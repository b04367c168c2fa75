// Sequence parallelism by all-to-all (Ulysses): the operations of `SequenceParallel` on a tape, over the
// ranks of a group.
//
// Passes of a network cannot throw. What fails in an exchange is handed to `attempt`, which keeps it for
// the next agreement of the ranks; until then the numbers mean nothing and nothing of them is saved.
// Source: DeepSpeed-Ulysses (2309.14509); the way back of an exchange is its inverse.

package import Autodiff
package import DenseKernels
package import Exchange
import MeshLayout
import Models
import ProcessMesh
import Tensors

package final class UlyssesSequence<Scalar: KernelScalar>: SequenceParallel {
  private let exchange: TokenExchange
  private let attempt: (() throws -> Void) -> Void

  /// - Parameters:
  ///   - exchange: over the ranks that share a sample's tokens.
  ///   - attempt: runs what may fail, and keeps the failure.
  package init(_ exchange: TokenExchange, attempt: @escaping (() throws -> Void) -> Void) {
    self.exchange = exchange
    self.attempt = attempt
  }

  package var degree: Int { exchange.transport.size }

  package func ownRange(of tokenCount: Int) -> Range<Int> {
    evenRange(of: tokenCount, part: exchange.transport.rank, partCount: degree)
  }

  package func scatterHeads(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let layout = layout(x, segments, width: x.shape[2])
    return record(
      x, [layout.sampleCount, layout.tokenCount, layout.partWidth], on: tape,
      forward: { [exchange] in try exchange.scatterHeads($0, layout: layout, into: $1) },
      backward: { [exchange] in try exchange.gatherHeads($0, layout: layout, into: $1) })
  }

  package func gatherHeads(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let layout = layout(x, segments, width: x.shape[2] * degree)
    let own = layout.tokenCount(of: exchange.transport.rank)
    return record(
      x, [layout.sampleCount, own, layout.width], on: tape,
      forward: { [exchange] in try exchange.gatherHeads($0, layout: layout, into: $1) },
      backward: { [exchange] in try exchange.scatterHeads($0, layout: layout, into: $1) })
  }

  package func gatherTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let (sampleCount, width) = (x.shape[0], x.shape[2])
    let layout = layout(x, [tokenCount], width: width)
    let own = ownRange(of: tokenCount)
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

  /// What was sent since the last call.
  package func takeStatistics() -> ExchangeStatistics { exchange.statistics.take() }

  // MARK: Parts

  private func layout(_ x: Value<Scalar>, _ segments: [Int], width: Int) -> TokenLayout {
    TokenLayout(sampleCount: x.shape[0], segments: segments, width: width, partCount: degree)
  }

  private func record(
    _ x: Value<Scalar>, _ shape: [Int], on tape: Tape<Scalar>,
    forward: (Buffer<Scalar>, Buffer<Scalar>) throws -> Void,
    backward: @escaping (Buffer<Scalar>, Buffer<Scalar>) throws -> Void
  ) -> Value<Scalar> {
    let output = tape.result(shape)
    attempt { try forward(x.tensor.buffer, output.buffer) }
    return tape.record(output, from: [x]) { [attempt, unowned tape] outputGradient, gradients in
      guard let dx = gradients.place(of: 0) else { return }
      let back = dx.accumulates ? tape.scratch(x.shape).buffer : dx.buffer
      attempt { try backward(outputGradient.buffer, back) }
      if dx.accumulates { Scalar.add(1, back, to: dx.buffer) }
    }
  }
}
