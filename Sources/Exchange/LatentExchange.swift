// Samples from the ranks that make them to those that score them, and the gradients at these samples back,
// where roles are split.
//
// A step's samples travel together when all ranks are between two steps, so that nobody waits for a rank
// that is in the middle of a pass. Gradients travel one by one, as soon as each is there. Words go as they
// are, as those of `TokenExchange`.

import Basics
package import DenseKernels
package import MeshLayout
import MessagePassing
package import ProcessMesh

/// Moves latents between the ranks of two roles. Used from the thread that owns the transport.
package final class LatentExchange {
  /// Of all ranks.
  private let transport: any Transport
  private let places: RolePlaces
  /// What has been sent since the last `take()`.
  package var statistics = ExchangeStatistics()

  /// Microbatches in flight end in an order of their own. So many at most are under way.
  private static func gradientTag(_ microbatch: Int) -> Int { 1 + microbatch % 4_000 }

  package init(transport: any Transport, places: RolePlaces) {
    self.transport = transport
    self.places = places
  }

  /// Brings the samples of all microbatches from the generator ranks to the score ranks.
  ///
  /// - Parameters:
  ///   - own: what this rank has made, by microbatch; nothing on score ranks.
  ///   - room: where a sample goes that came; asked on score ranks for each of their microbatches, in order.
  /// - Collective: over the transport; all samples have as many elements.
  /// - Throws: what the transport throws; `PeerError` where a rank sends another number of bytes.
  /// - Cost: every sample is sent once to each rank that scores it.
  package func bringSamples(
    _ own: [Int: Buffer<Float>], into room: (_ microbatch: Int) -> Buffer<Float>
  ) throws {
    let role = places.role(of: transport.rank)
    let payloads = (0..<transport.size).map { peer in
      Self.payload(
        role == .generator && places.role(of: peer) == .score
          ? shared(transport.rank, peer).map { own[$0] ?? Buffer(zeroed: 0) } : [])
    }
    for payload in payloads where payload.count > 0 { note(payload.count) }
    let received = try waiting { try transport.startAllToAll(payloads).wait() }
    guard role == .score else { return }
    for microbatch in places.microbatches(of: transport.rank) {
      let peer = places.source(of: microbatch, for: transport.rank)
      guard let index = shared(peer, transport.rank).firstIndex(of: microbatch) else {
        trap("rank \(peer) has no microbatch \(microbatch)")
      }
      let target = room(microbatch)
      let payload = received[peer]
      let count = shared(peer, transport.rank).count
      try check(payload.count, count * Self.byteCount(target), from: peer)
      payload.withBytes { bytes in
        _ = target.unpackRows(
          1, width: target.count, stride: target.count, from: bytes,
          at: index * Self.byteCount(target))
      }
    }
  }

  /// Sends the gradient at a sample to those that made it and wait for this rank's, without waiting for it to
  /// arrive.
  package func sendGradient(_ gradient: Buffer<Float>, of microbatch: Int) throws {
    for peer in places.ranks(.generator, of: microbatch)
    where places.source(of: microbatch, for: peer) == transport.rank {
      let payload = Self.payload([gradient])
      note(payload.count)
      try transport.post(payload, to: peer, tag: Self.gradientTag(microbatch))
    }
  }

  /// The gradient at a sample of this rank.
  package func receiveGradient(of microbatch: Int, into gradient: Buffer<Float>) throws {
    let peer = places.source(of: microbatch, for: transport.rank)
    let payload = try waiting {
      try transport.receivePayload(from: peer, tag: Self.gradientTag(microbatch))
    }
    try check(payload.count, Self.byteCount(gradient), from: peer)
    payload.withBytes { bytes in
      _ = gradient.unpackRows(
        1, width: gradient.count, stride: gradient.count, from: bytes, at: 0)
    }
  }

  // MARK: Parts

  /// The microbatches whose samples a score rank gets from a generator rank, in order.
  private func shared(_ generatorRank: Int, _ scoreRank: Int) -> [Int] {
    places.microbatches(of: scoreRank)
      .filter { places.source(of: $0, for: scoreRank) == generatorRank }
  }

  private static func byteCount(_ buffer: Buffer<Float>) -> Int {
    buffer.count * MemoryLayout<Float>.stride
  }

  private static func payload(_ buffers: [Buffer<Float>]) -> Payload {
    Payload(capacity: buffers.reduce(0) { $0 + byteCount($1) }) { bytes in
      buffers.reduce(0) { offset, buffer in
        offset
          + buffer.packRows(
            1, width: buffer.count, stride: buffer.count, into: &bytes, at: offset)
      }
    }
  }

  private func note(_ byteCount: Int) {
    statistics[.activations].rawByteCount += byteCount
    statistics[.activations].wireByteCount += byteCount
    statistics[.activations].messageCount += 1
  }

  private func waiting<Result>(_ body: () throws -> Result) rethrows -> Result {
    let clock = ContinuousClock()
    let start = clock.now
    defer { statistics[.activations].waitSeconds += (clock.now - start).inSeconds }
    return try body()
  }

  private func check(_ found: Int, _ expected: Int, from peer: Int) throws {
    guard found == expected else {
      throw PeerError(
        code: .malformedPayload, rank: peer,
        message: "sent \(found) bytes of latents where \(expected) belong")
    }
  }
}
