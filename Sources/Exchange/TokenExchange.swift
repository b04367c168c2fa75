// Activations between the ranks of a sequence-parallel group: own tokens of all heads become all tokens
// of own heads, and back, by one all-to-all each. How keys and values go round: TokenExchange+Ring.swift; columns
// in place of tokens: TokenExchange+Columns.swift.
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

  /// Whether what has been started is left to travel until it is needed; else a start waits for it.
  private let overlaps: Bool
  /// What has left and has not arrived, in this order.
  private var traveling: [TokenTransfer] = []

  package init(transport: any Transport, overlaps: Bool = false) {
    self.transport = transport
    self.overlaps = overlaps && transport.size > 1
  }

  /// Whether anything goes on beside the computation.
  package var hasWorkBeside: Bool { overlaps }

  /// Moves on what has left.
  package func advance() throws {
    for transfer in traveling { try transfer.advance() }
  }

  /// Own tokens of all heads → all tokens of own heads.
  ///
  /// - Shapes: x [B, own tokens, width] → y [B, tokens, width / size].
  /// - Collective: over the group; the layout must agree.
  /// - Throws: what the transport throws; `PeerError` where a peer sends another number of bytes.
  /// - Cost: sends (size − 1) / size of x.
  package func scatterHeads<Scalar: KernelScalar>(
    _ x: Buffer<Scalar>, layout: TokenLayout, into y: Buffer<Scalar>
  ) throws {
    let transfer = try startScatterHeads(x, layout: layout)
    try finishScatterHeads(transfer, layout: layout, into: y)
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
    let transfer = try startGatherHeads(y, layout: layout)
    try finishGatherHeads(transfer, layout: layout, into: x)
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
    requireCounts(
      own: x.count, layout.sampleCount * layout.tokenCount(of: transport.rank) * layout.width,
      all: y.count, layout.sampleCount * layout.tokenCount * layout.width, layout)
    try gather(x) { peer in
      layout.sampleCount * layout.tokenCount(of: peer) * layout.width
    } receive: { peer, bytes in
      var offset = 0
      for place in Self.places(of: peer, layout, width: layout.width) {
        offset += y[place].unpackRows(
          1, width: place.count, stride: place.count, from: bytes, at: offset)
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
  static func places(
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
  static func columns<Scalar: KernelScalar>(
    of part: Int, in x: Buffer<Scalar>, _ layout: TokenLayout
  ) -> Buffer<Scalar> {
    x[min(part * layout.partWidth, x.count)..<x.count]
  }

  /// One all-gather of x; `elementCount` tells how much a rank sends.
  func gather<Scalar: KernelScalar>(
    _ x: Buffer<Scalar>, elementCount: (_ from: Int) -> Int,
    receive: (_ peer: Int, RawSpan) -> Void
  ) throws {
    let size = MemoryLayout<Scalar>.stride
    let payload = Payload(capacity: x.count * size) { bytes in
      x.packRows(1, width: x.count, stride: x.count, into: &bytes, at: 0)
    }
    let peerCount = transport.size - 1
    note(byteCount: peerCount * x.count * size, messageCount: peerCount)
    let payloads = try waiting { try transport.startAllGather(payload).wait() }
    for (peer, payload) in payloads.enumerated() {
      try check(payload, from: peer, elementCount(peer) * size)
      payload.withBytes { receive(peer, $0) }
    }
  }

  /// One all-to-all; `elementCount` tells how much a rank sends another.
  func exchange<Scalar: KernelScalar>(
    _: Scalar.Type, send: (_ peer: Int, inout MutableRawSpan) -> Int,
    receive: (_ peer: Int, RawSpan) -> Void, elementCount: (_ from: Int, _ to: Int) -> Int
  ) throws {
    let rank = transport.rank
    let transfer = try start(Scalar.self, send: send) { elementCount(rank, $0) }
    try finish(transfer, Scalar.self, receive: receive) { elementCount($0, rank) }
  }

  /// Starts one all-to-all; `elementCount` tells how much each peer gets.
  func start<Scalar: KernelScalar>(
    _: Scalar.Type, send: (_ peer: Int, inout MutableRawSpan) -> Int,
    elementCount: (_ peer: Int) -> Int
  ) throws -> TokenTransfer {
    let rank = transport.rank
    let payloads = (0..<transport.size).map { peer in
      Payload(capacity: elementCount(peer) * MemoryLayout<Scalar>.stride) { bytes in
        send(peer, &bytes)
      }
    }
    note(
      byteCount: payloads.indices.reduce(0) { $0 + ($1 == rank ? 0 : payloads[$1].count) },
      messageCount: payloads.count - 1)
    let transfer = TokenTransfer(try transport.startAllToAll(payloads))
    traveling.append(transfer)
    if !overlaps { try waiting { try transfer.wait() } }
    return transfer
  }

  /// Waits for one and hands over what came; `elementCount` tells how much each peer has sent.
  func finish<Scalar: KernelScalar>(
    _ transfer: TokenTransfer, _: Scalar.Type, receive: (_ peer: Int, RawSpan) -> Void,
    elementCount: (_ peer: Int) -> Int
  ) throws {
    let received = try waiting { try transfer.take() }
    traveling.removeAll { $0 === transfer }
    for (peer, payload) in received.enumerated() {
      try check(payload, from: peer, elementCount(peer) * MemoryLayout<Scalar>.stride)
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

  func requireOwn(_ count: Int, _ layout: TokenLayout) {
    require(
      layout.partCount == transport.size
        && count == layout.sampleCount * layout.tokenCount(of: transport.rank) * layout.width,
      "\(count) own elements for \(layout) in a group of \(transport.size)")
  }

  func requireAll(_ count: Int, _ layout: TokenLayout) {
    require(
      layout.partCount == transport.size
        && count == layout.sampleCount * layout.tokenCount * layout.partWidth,
      "\(count) elements of own heads for \(layout) in a group of \(transport.size)")
  }

  private func requireCounts(
    own: Int, _ expectedOwn: Int, all: Int, _ expectedAll: Int, _ layout: TokenLayout
  ) {
    require(
      layout.partCount == transport.size && own == expectedOwn && all == expectedAll,
      "\(own) own and \(all) gathered elements for \(layout) in a group of \(transport.size)")
  }
}
