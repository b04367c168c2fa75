// A stage of a pipeline on the tape: states come from the stage before and go to the next one, gradients
// the other way, and the velocity from the last stage to all.
//
// The ranks of a stage may share the tokens, or cut the weights, among them: then there is a pipeline for each of
// them, whose states are those of its tokens, and each rank of the last stage gathers the velocity.
//
// Where a microbatch would wait for the velocity of its pass it says so (`onWait`): the rank may go on with
// another one. The way back of a microbatch runs to its end once it has begun.

package import Autodiff
import Basics
package import DenseKernels
package import Exchange
import MeshLayout
package import Models
import ProcessMesh
import Tensors

package final class StagedSequence<Scalar: KernelScalar>: SequenceParallel, PipelineStage {
  private let exchange: StageExchange
  package let tokens: (any SequenceParallel<Scalar>)?
  /// Runs what may fail, and keeps the failure.
  private let attempt: (() throws -> Void) -> Void
  /// Called where a microbatch has nothing to compute until the velocity of its pass is there.
  package var onWait: () -> Void = {}
  package let canonical: (any CanonicalSums<Scalar>)?

  /// - Parameters:
  ///   - exchange: over the stages of one pipeline.
  ///   - tokens: how the ranks of a stage cut the tokens; nil: each runs all.
  ///   - canonical: how sums over the tokens, which a stage has all, are made.
  ///   - attempt: runs what may fail, and keeps the failure.
  package init(
    _ exchange: StageExchange, around tokens: (any SequenceParallel<Scalar>)? = nil,
    canonical: (any CanonicalSums<Scalar>)? = nil,
    attempt: @escaping (() throws -> Void) -> Void
  ) {
    self.exchange = exchange
    self.tokens = tokens
    self.canonical = tokens?.canonical ?? canonical
    self.attempt = attempt
  }

  package var stage: (any PipelineStage<Scalar>)? { self }
  package var isFirst: Bool { exchange.isFirst }
  package var isLast: Bool { exchange.isLast }
  package var stageIndex: Int { exchange.transport.rank }
  package var stageCount: Int { exchange.transport.size }

  package func blocks(of count: Int) -> Range<Int> {
    StageCut(blockCount: count, stageCount: stageCount).blocks(of: stageIndex)
  }

  package func receive(_ shapes: [[Int]], on tape: Tape<Scalar>) -> [Value<Scalar>] {
    let tensors = shapes.map { tape.result($0) }
    var isTracked = shapes.map { _ in false }
    attempt { isTracked = try exchange.receiveState(into: tensors.map(\.buffer)) }
    return tape.inputs(Array(zip(tensors, isTracked))) { [exchange, attempt] gradients in
      attempt { try exchange.sendGradients(gradients.map { $0?.buffer }) }
    }
  }

  package func handOn(
    _ state: consuming [Value<Scalar>], velocityShape: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let velocity = sent(state, velocityShape, on: tape)
    onWait()
    attempt { try exchange.receiveVelocity(into: velocity.tensor.buffer) }
    return velocity
  }

  /// Sends a state, which is gone then: not inlined, so that it is not held while others are in flight.
  /// - Returns: what a later stage makes of it, once that has been received.
  @inline(never)
  private func sent(
    _ state: consuming [Value<Scalar>], _ shape: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let buffers = state.map(\.tensor.buffer)
    let isTracked = state.map { tape.isRecording && $0.isTracked }
    attempt { try exchange.sendState(buffers, isTracked: isTracked) }
    // What the seed says of the result, the stage that has made it knows as well.
    return tape.record(tape.result(shape), from: state) {
      [exchange, attempt, count = state.count] _, gradients in
      attempt {
        try exchange.receiveGradients(count: count) {
          (index, write: (Buffer<Scalar>) throws -> Void) in
          guard let place = gradients.place(of: index) else { return }
          precondition(!place.accumulates, "a state that is used behind its stage")
          try write(place.buffer)
        }
      }
    }
  }

  package func publish(_ velocity: Value<Scalar>) {
    attempt { try exchange.sendVelocity(velocity.tensor.buffer) }
    onWait()
  }

  // MARK: Features

  package func stage(ofBlock block: Int, of count: Int) -> Int {
    StageCut(blockCount: count, stageCount: stageCount).stage(ofBlock: block)
  }

  package func handOn(
    _ state: consuming [Value<Scalar>], featuresShape: [Int], of stage: Int,
    on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let features = sent(state, featuresShape, on: tape)
    onWait()
    attempt { try exchange.receiveFeatures(of: stage, into: features.tensor.buffer) }
    return features
  }

  package func receiveFeatures(
    _ shape: [Int], of stage: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    onWait()
    let features = tape.result(shape)
    attempt { try exchange.receiveFeatures(of: stage, into: features.buffer) }
    return Value(constant: features)
  }

  package func publish(features: Value<Scalar>) {
    attempt { try exchange.sendFeatures(features.tensor.buffer) }
    onWait()
  }

  /// The stages wait for it as for a velocity, so that others in flight go on meanwhile.
  package func sharingGradient(
    of latents: Value<Scalar>, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    tape.completingGradient(of: latents) {
      [self, exchange, attempt, shape = latents.shape, unowned tape] found in
      if exchange.isFirst {
        guard let found else { trap("nothing reached the latents") }
        attempt { try exchange.sendLatentGradient(found.buffer) }
        onWait()
        return found
      }
      onWait()
      let gradient = tape.result(shape)
      attempt { try exchange.receiveLatentGradient(into: gradient.buffer) }
      return gradient
    }
  }

  // MARK: Tokens

  package var partCount: Int { tokens?.partCount ?? 1 }

  package var tensor: (any TensorParallel<Scalar>)? { tokens?.tensor }
  package var headExchange: (any HeadExchange<Scalar>)? { tokens?.headExchange }
  package var keyRing: (any KeyRing<Scalar>)? { tokens?.keyRing }

  package func ownRange(of tokenCount: Int) -> Range<Int> {
    tokens?.ownRange(of: tokenCount) ?? 0..<tokenCount
  }

  package func operand(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> AttentionOperand<Scalar> {
    tokens?.operand(x, segments: segments, on: tape) ?? AttentionOperand(x)
  }

  package func attention(
    query: Value<Scalar>, key: Value<Scalar>, value: Value<Scalar>, headCount: Int,
    mask: AttentionMask?, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    tokens?.attention(
      query: query, key: key, value: value, headCount: headCount, mask: mask,
      segments: segments, on: tape)
      ?? tape.attention(
        query: query, key: key, value: value, headCount: headCount, mask: mask)
  }

  package func gatherTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar> { tokens?.gatherTokens(x, tokenCount: tokenCount, on: tape) ?? x }
}
