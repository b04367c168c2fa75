// Activations between the ranks of a sequence-parallel group: own tokens of all heads become all tokens
// of own heads, and back, by one all-to-all each. How keys and values go round: TokenExchange+Ring.swift.
//
// Goals: 1 nothing is copied but into and out of messages, 2 any number of tokens. Words travel as they
// are, without header or checksum: MPI delivers them or ends the job, and every rank knows how many come.
// Source: DeepSpeed-Ulysses (2309.14509) §3; bytes: specs of Vchitect-2.0 §6.4.

import Basics
package import DenseKernels
package import MeshLayout
import MessagePassing
package import ProcessMesh

/// Moves tensors of one group of ranks. Used from the thread that owns the transport.
package final class TokenExchange {
  /// The group over which all operations are collective.
  package let transport: any Transport
  /// What has been sent since the last `take()`.
  package var statistics = ExchangeStatistics()

  package init(transport: any Transport) { self.transport = transport }

  /// Own tokens of all heads → all tokens of own heads.
  ///
  /// - Shapes: x [B, own tokens, width] → y [B, tokens, width / size].
  /// - Collective: over the group; the layout must agree.
  /// - Throws: what the transport throws; `PeerError` where a peer sends another number of bytes.
  /// - Cost: sends (size − 1) / size of x.
  package func scatterHeads<Scalar: KernelScalar>(
    _ x: Buffer<Scalar>, layout: TokenLayout, into y: Buffer<Scalar>
  ) throws {
    let ownCount = requireSizes(own: x, all: y, layout)
    let (width, partWidth) = (layout.width, layout.partWidth)
    try exchange(Scalar.self) { peer, bytes in
      Self.columns(of: peer, in: x, layout).packRows(
        layout.sampleCount * ownCount, width: partWidth, stride: width, into: &bytes, at: 0)
    } receive: { peer, bytes in
      var offset = 0
      for place in Self.places(of: peer, layout) {
        offset += y[place].unpackRows(
          1, width: place.count, stride: place.count, from: bytes, at: offset)
      }
    } elementCount: { from, _ in
      layout.sampleCount * layout.tokenCount(of: from) * partWidth
    }
  }

  /// All tokens of own heads → own tokens of all heads: the inverse of `scatterHeads`, and its adjoint.
  ///
  /// - Shapes: y [B, tokens, width / size] → x [B, own tokens, width].
  /// - Collective: over the group; the layout must agree.
  /// - Throws: as `scatterHeads`.
  /// - Cost: sends all of y but the own tokens.
  package func gatherHeads<Scalar: KernelScalar>(
    _ y: Buffer<Scalar>, layout: TokenLayout, into x: Buffer<Scalar>
  ) throws {
    let ownCount = requireSizes(own: x, all: y, layout)
    let (width, partWidth) = (layout.width, layout.partWidth)
    try exchange(Scalar.self) { peer, bytes in
      var offset = 0
      for place in Self.places(of: peer, layout) {
        offset += y[place].packRows(
          1, width: place.count, stride: place.count, into: &bytes, at: offset)
      }
      return offset
    } receive: { peer, bytes in
      _ = Self.columns(of: peer, in: x, layout).unpackRows(
        layout.sampleCount * ownCount, width: partWidth, stride: width, from: bytes, at: 0)
    } elementCount: { _, to in
      layout.sampleCount * layout.tokenCount(of: to) * partWidth
    }
  }

  /// Own tokens → all tokens, on every rank.
  ///
  /// - Shapes: x [B, own tokens, width] → y [B, tokens, width].
  /// - Collective: over the group; the layout must agree.
  /// - Throws: as `scatterHeads`.
  /// - Cost: sends x to every peer.
  package func gatherTokens<Scalar: KernelScalar>(
    _ x: Buffer<Scalar>, layout: TokenLayout, into y: Buffer<Scalar>
  ) throws {
    let size = transport.size
    requireCounts(
      own: x.count, layout.sampleCount * layout.tokenCount(of: transport.rank) * layout.width,
      all: y.count, layout.sampleCount * layout.tokenCount * layout.width, layout)
    let length = x.count * MemoryLayout<Scalar>.stride
    let payload = Payload(capacity: length) { bytes in
      x.packRows(1, width: x.count, stride: x.count, into: &bytes, at: 0)
    }
    note(byteCount: (size - 1) * length, messageCount: size - 1)
    let payloads = try waiting { try transport.startAllGather(payload).wait() }
    for (peer, payload) in payloads.enumerated() {
      try check(
        payload, from: peer,
        layout.sampleCount * layout.tokenCount(of: peer) * layout.width
          * MemoryLayout<Scalar>.stride)
      payload.withBytes { bytes in
        var offset = 0
        for place in Self.places(of: peer, layout, width: layout.width) {
          offset += y[place].unpackRows(
            1, width: place.count, stride: place.count, from: bytes, at: offset)
        }
      }
    }
  }

  /// All tokens on every rank → own tokens, summed in the tree over the ranks: the adjoint of `gatherTokens`.
  ///
  /// - Parameter room: holds `heldPartialCount(ofTree: size)` times as many elements as x.
  /// - Shapes: y [B, tokens, width] → x [B, own tokens, width].
  /// - Collective: over the group; the layout must agree.
  /// - Throws: as `scatterHeads`.
  /// - Cost: sends all of y but the own tokens.
  package func reduceTokens<Scalar: KernelScalar>(
    _ y: Buffer<Scalar>, layout: TokenLayout, into x: Buffer<Scalar>, room: Buffer<Scalar>
  ) throws {
    let rank = transport.rank
    requireCounts(
      own: x.count, layout.sampleCount * layout.tokenCount(of: rank) * layout.width,
      all: y.count, layout.sampleCount * layout.tokenCount * layout.width, layout)
    let roomCount = heldPartialCount(ofTree: transport.size)
    precondition(
      room.count == roomCount * x.count,
      "room for \(room.count) elements beside \(x.count), \(roomCount) times as many are needed")
    // The first operand is the left one of all that follow: it is summed where the result belongs.
    func partial(_ index: Int) -> Buffer<Scalar> {
      index == 0 ? x : room[(index - 1) * x.count..<index * x.count]
    }
    var free = Array((0...roomCount).reversed())
    var sums = BinaryCounter<Int>()
    func add(_ left: Int, _ right: Int) -> Int {
      Scalar.add(1, partial(right), to: partial(left))
      free.append(right)
      return left
    }
    try exchange(Scalar.self) { peer, bytes in
      // Own tokens are read where they are.
      if peer == rank { return 0 }
      var offset = 0
      for place in Self.places(of: peer, layout, width: layout.width) {
        offset += y[place].packRows(
          1, width: place.count, stride: place.count, into: &bytes, at: offset)
      }
      return offset
    } receive: { peer, bytes in
      let index = free.removeLast()
      let term = partial(index)
      if peer == rank {
        var start = 0
        for place in Self.places(of: rank, layout, width: layout.width) {
          term[start..<start + place.count].copy(from: y[place])
          start += place.count
        }
      } else {
        _ = term.unpackRows(1, width: x.count, stride: x.count, from: bytes, at: 0)
      }
      sums.push(index, combine: add)
    } elementCount: { from, to in
      from == to ? 0 : layout.sampleCount * layout.tokenCount(of: to) * layout.width
    }
    _ = sums.finish(combine: add)
  }

  // MARK: Parts

  /// Where the tokens of a part lie in a tensor of all tokens, as ranges of elements, sample by sample.
  private static func places(
    of part: Int, _ layout: TokenLayout, width: Int? = nil
  ) -> [Range<Int>] {
    let width = width ?? layout.partWidth
    return (0..<layout.sampleCount).flatMap { sample in
      layout.ranges(of: part).map { range in
        let start = sample * layout.tokenCount
        return (start + range.lowerBound) * width..<(start + range.upperBound) * width
      }
    }
  }

  /// A part's heads, from those of the first own token on; nothing where there is no own token.
  private static func columns<Scalar: KernelScalar>(
    of part: Int, in x: Buffer<Scalar>, _ layout: TokenLayout
  ) -> Buffer<Scalar> {
    x[min(part * layout.partWidth, x.count)..<x.count]
  }

  /// One all-to-all; `elementCount` tells how much a rank sends another.
  private func exchange<Scalar: KernelScalar>(
    _: Scalar.Type, send: (_ peer: Int, inout MutableRawSpan) -> Int,
    receive: (_ peer: Int, RawSpan) -> Void, elementCount: (_ from: Int, _ to: Int) -> Int
  ) throws {
    let rank = transport.rank
    let size = MemoryLayout<Scalar>.stride
    let payloads = (0..<transport.size).map { peer in
      Payload(capacity: elementCount(rank, peer) * size) { bytes in send(peer, &bytes) }
    }
    note(
      byteCount: payloads.indices.reduce(0) { $0 + ($1 == rank ? 0 : payloads[$1].count) },
      messageCount: payloads.count - 1)
    let received = try waiting { try transport.startAllToAll(payloads).wait() }
    for (peer, payload) in received.enumerated() {
      try check(payload, from: peer, elementCount(peer, rank) * size)
      payload.withBytes { receive(peer, $0) }
    }
  }

  private func waiting<Result>(_ body: () throws -> Result) rethrows -> Result {
    let clock = ContinuousClock()
    let start = clock.now
    defer { noteWait(clock.now - start) }
    return try body()
  }

  func noteWait(_ duration: Duration) {
    statistics[.activations].waitSeconds += duration.inSeconds
  }

  func note(byteCount: Int, messageCount: Int) {
    statistics[.activations].rawByteCount += byteCount
    statistics[.activations].wireByteCount += byteCount
    statistics[.activations].messageCount += messageCount
  }

  func check(_ payload: Payload, from peer: Int, _ byteCount: Int) throws {
    guard payload.count == byteCount else {
      throw PeerError(
        code: .malformedPayload, rank: peer,
        message: "sent \(payload.count) bytes of activations where \(byteCount) belong")
    }
  }

  /// - Returns: own tokens of a sample.
  private func requireSizes<Scalar: KernelScalar>(
    own x: Buffer<Scalar>, all y: Buffer<Scalar>, _ layout: TokenLayout
  ) -> Int {
    let ownCount = layout.tokenCount(of: transport.rank)
    requireCounts(
      own: x.count, layout.sampleCount * ownCount * layout.width, all: y.count,
      layout.sampleCount * layout.tokenCount * layout.partWidth, layout)
    return ownCount
  }

  private func requireCounts(
    own: Int, _ expectedOwn: Int, all: Int, _ expectedAll: Int, _ layout: TokenLayout
  ) {
    require(
      layout.partCount == transport.size && own == expectedOwn && all == expectedAll,
      "\(own) own and \(all) gathered elements for \(layout) in a group of \(transport.size)")
  }
}
