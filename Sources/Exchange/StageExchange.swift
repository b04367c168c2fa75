// Token states between the stages of a pipeline: forward to the next stage, gradients back to the one before,
// the velocity from the last stage to all others; likewise features from the stage that has them, and the gradient at
// latents from the first.
//
// Messages are posted, not waited for: a stage goes on with another microbatch. Those of one kind between two
// stages arrive in the order of sending, which is that of receiving. Words travel as they are, as in
// `TokenExchange`; in front of a state stands a word for each tensor that says whether it is tracked, or there.

import Basics
package import DenseKernels
import MessagePassing
package import ProcessMesh

/// Moves the states of one pipeline, whose ranks are its stages. Used from the thread that has the transport.
package final class StageExchange {
  package let transport: any Transport
  /// What has been sent since the last `take()`.
  package var statistics = ExchangeStatistics()

  private enum Tag: Int {
    case state = 1
    case gradient, velocity, features, latentGradient
  }

  package init(transport: any Transport) { self.transport = transport }

  package var isFirst: Bool { transport.rank == 0 }
  package var isLast: Bool { transport.rank == transport.size - 1 }

  // MARK: States

  /// Sends a state to the next stage.
  /// - Parameter isTracked: by tensor, whether its gradient is wanted back.
  package func sendState<Scalar: KernelScalar>(
    _ tensors: [Buffer<Scalar>], isTracked: [Bool]
  ) throws {
    try post(tensors, flags: isTracked, to: transport.rank + 1, .state)
  }

  /// The state that the stage before has sent.
  /// - Returns: by tensor, whether its gradient is wanted.
  package func receiveState<Scalar: KernelScalar>(into tensors: [Buffer<Scalar>]) throws -> [Bool] {
    let payload = try receive(from: transport.rank - 1, .state)
    try check(payload, from: transport.rank - 1, Self.byteCount(flagCount: tensors.count, tensors))
    let flags = Buffer<Scalar>(zeroed: tensors.count)
    payload.withBytes { bytes in
      _ = ([flags] + tensors).reduce(0) { $0 + Self.unpack(bytes, at: $0, into: $1) }
    }
    return flags.array.map { $0 != 0 }
  }

  /// Sends the gradients of a received state to the stage before; nil stands for zero.
  package func sendGradients<Scalar: KernelScalar>(_ gradients: [Buffer<Scalar>?]) throws {
    try post(
      gradients.compactMap(\.self), flags: gradients.map { $0 != nil }, to: transport.rank - 1,
      .gradient)
  }

  /// The gradients of the state that this stage has sent.
  /// - Parameters:
  ///   - count: tensors of the state.
  ///   - take: is given the number of a tensor and what writes its gradient into memory.
  package func receiveGradients<Scalar: KernelScalar>(
    count: Int, _ take: (_ index: Int, _ write: (Buffer<Scalar>) throws -> Void) throws -> Void
  ) throws {
    let peer = transport.rank + 1
    let payload = try receive(from: peer, .gradient)
    let flags = Buffer<Scalar>(zeroed: count)
    var offset = 0
    func read(_ target: Buffer<Scalar>) throws {
      let end = offset + target.count * MemoryLayout<Scalar>.stride
      guard end <= payload.count else { throw malformed(payload, from: peer, end) }
      offset += payload.withBytes { Self.unpack($0, at: offset, into: target) }
    }
    try read(flags)
    for index in 0..<count where flags[index] != 0 { try take(index, read) }
    try check(payload, from: peer, offset)
  }

  // MARK: Velocities

  /// The last stage sends a velocity to all others.
  package func sendVelocity<Scalar: KernelScalar>(_ velocity: Buffer<Scalar>) throws {
    try publish(velocity, .velocity)
  }

  package func receiveVelocity<Scalar: KernelScalar>(into velocity: Buffer<Scalar>) throws {
    try receive(into: velocity, from: transport.size - 1, .velocity)
  }

  // MARK: Features

  /// A stage sends features to all others.
  package func sendFeatures<Scalar: KernelScalar>(_ features: Buffer<Scalar>) throws {
    try publish(features, .features)
  }

  /// Those that a stage has sent.
  package func receiveFeatures<Scalar: KernelScalar>(
    of stage: Int, into features: Buffer<Scalar>
  ) throws {
    try receive(into: features, from: stage, .features)
  }

  /// The first stage sends the gradient at latents to all others.
  package func sendLatentGradient<Scalar: KernelScalar>(_ gradient: Buffer<Scalar>) throws {
    try publish(gradient, .latentGradient)
  }

  package func receiveLatentGradient<Scalar: KernelScalar>(into gradient: Buffer<Scalar>) throws {
    try receive(into: gradient, from: 0, .latentGradient)
  }

  // MARK: Parts

  private func post<Scalar: KernelScalar>(
    _ tensors: [Buffer<Scalar>], flags: [Bool], to peer: Int, _ tag: Tag
  ) throws {
    let flags = Buffer<Scalar>(flags.map { $0 ? 1 : 0 })
    let payload = Payload(capacity: Self.byteCount(flagCount: flags.count, tensors)) { bytes in
      var offset = 0
      for tensor in [flags] + tensors {
        offset += tensor.packRows(
          1, width: tensor.count, stride: tensor.count, into: &bytes, at: offset)
      }
      return offset
    }
    try post(payload, to: peer, tag)
  }

  private func post(_ payload: Payload, to peer: Int, _ tag: Tag) throws {
    statistics[.activations].rawByteCount += payload.count
    statistics[.activations].wireByteCount += payload.count
    statistics[.activations].messageCount += 1
    try transport.post(payload, to: peer, tag: tag.rawValue)
  }

  /// Sends words to all other stages.
  private func publish<Scalar: KernelScalar>(_ words: Buffer<Scalar>, _ tag: Tag) throws {
    let payload = Payload(capacity: words.count * MemoryLayout<Scalar>.stride) { bytes in
      words.packRows(1, width: words.count, stride: words.count, into: &bytes, at: 0)
    }
    for stage in 0..<transport.size where stage != transport.rank {
      try post(payload, to: stage, tag)
    }
  }

  private func receive<Scalar: KernelScalar>(
    into words: Buffer<Scalar>, from peer: Int, _ tag: Tag
  ) throws {
    let payload = try receive(from: peer, tag)
    try check(payload, from: peer, words.count * MemoryLayout<Scalar>.stride)
    payload.withBytes { _ = Self.unpack($0, at: 0, into: words) }
  }

  private func receive(from peer: Int, _ tag: Tag) throws -> Payload {
    let clock = ContinuousClock()
    let start = clock.now
    defer { statistics[.activations].waitSeconds += (clock.now - start).inSeconds }
    return try transport.receivePayload(from: peer, tag: tag.rawValue)
  }

  private static func byteCount<Scalar>(flagCount: Int, _ tensors: [Buffer<Scalar>]) -> Int {
    tensors.reduce(flagCount) { $0 + $1.count } * MemoryLayout<Scalar>.stride
  }

  private static func unpack<Scalar: KernelScalar>(
    _ bytes: RawSpan, at offset: Int, into target: Buffer<Scalar>
  ) -> Int {
    target.unpackRows(
      1, width: target.count, stride: target.count, from: bytes, at: offset)
  }

  private func check(_ payload: Payload, from peer: Int, _ byteCount: Int) throws {
    guard payload.count == byteCount else { throw malformed(payload, from: peer, byteCount) }
  }

  private func malformed(_ payload: Payload, from peer: Int, _ byteCount: Int) -> PeerError {
    PeerError(
      code: .malformedPayload, rank: peer,
      message: "sent \(payload.count) bytes of a stage's tokens where \(byteCount) belong")
  }
}
