// All collectives, written once over point-to-point messages. A link carries the messages between
// processes (`MPILink`) or threads (`InProcessLink`).
//
// Every collective takes the next number of its group as its tag. Ranks start collectives in the
// same order, so the numbers agree, and several may be on their way at once without mixing.

import Basics
import MeshLayout
package import MessagePassing

/// One message on its way, out or in.
package protocol LinkMessage: AnyObject {
  /// True when the message has left (out) or is here (in); never waits.
  func advance() throws -> Bool
  /// What came in.
  /// - Precondition: a message in that is here.
  func received() -> Payload
}

/// One rank's ends of the messages of a group.
package protocol MessageLink: AnyObject {
  var rank: Int { get }
  var size: Int { get }
  var history: CollectiveHistory { get }
  func isSameNode(_ peer: Int) -> Bool
  /// Starts sending the same payload to each of `peers`.
  func startSend(_ payload: Payload, to peers: [Int], tag: Int) throws -> [any LinkMessage]
  func startReceive(from peer: Int, tag: Int) throws -> any LinkMessage
  /// Waits, backing off, until all of `messages` are through.
  func wait(for messages: [any LinkMessage]) throws
  func split(color: Int, key: Int) throws -> Self
  /// Whether a peer is known to have failed.
  var isBroken: Bool { get }
  /// Ends the job for all ranks.
  func abandon(_ error: any Error)
}

/// The endpoint of a group whose messages `Link` carries.
package final class LinkTransport<Link: MessageLink>: Transport {
  /// Tags below are the callers', tags from here on number the collectives.
  private static var firstCollectiveTag: Int { 4096 }
  private static var collectiveTagCount: Int { 16_384 }

  package let link: Link
  private var collectiveCount = 0

  package init(_ link: Link) { self.link = link }

  package var rank: Int { link.rank }
  package var size: Int { link.size }
  package func isSameNode(_ peer: Int) -> Bool { link.isSameNode(peer) }

  package func abandon(_ error: any Error) { link.abandon(error) }

  // MARK: Messages

  package func send(_ bytes: [UInt8], to peer: Int, tag: Int) throws {
    checkMessage(peer: peer, tag: tag)
    link.history.record("send to \(peer)", groupSize: size, byteCount: bytes.count)
    try link.wait(for: link.startSend(Payload(bytes), to: [peer], tag: tag))
  }

  package func startSend(_ payload: Payload, to peer: Int, tag: Int) throws -> PendingOperation {
    checkMessage(peer: peer, tag: tag)
    link.history.record("send to \(peer)", groupSize: size, byteCount: payload.count)
    let sends = try link.startSend(payload, to: [peer], tag: tag)
    return PendingOperation(
      StartedExchange(link: link, own: payload, sends: sends, receives: []), name: "send")
  }

  package func receive(from peer: Int, tag: Int) throws -> [UInt8] {
    checkMessage(peer: peer, tag: tag)
    link.history.record("receive from \(peer)", groupSize: size, byteCount: 0)
    return try take(from: peer, tag: tag).array
  }

  // MARK: Collectives

  package func barrier() throws {
    let tag = begin("barrier", byteCount: 0)
    // Dissemination: after the round with distance d every rank knows of 2d ranks.
    var distance = 1
    while distance < size {
      let sends = try link.startSend(Payload([]), to: [(rank + distance) % size], tag: tag)
      let receive = try link.startReceive(from: (rank - distance + size) % size, tag: tag)
      try link.wait(for: sends + [receive])
      distance *= 2
    }
  }

  package func broadcast(_ bytes: [UInt8], root: Int) throws -> [UInt8] {
    checkRank(root)
    let tag = begin("broadcast from \(root)", byteCount: rank == root ? bytes.count : 0)
    let tree = BinomialTree(rank: rank, root: root, size: size)
    let payload = try tree.parent.map { try take(from: $0, tag: tag) } ?? Payload(bytes)
    try link.wait(for: link.startSend(payload, to: tree.children, tag: tag))
    return payload.array
  }

  package func gather(_ bytes: [UInt8], root: Int) throws -> [[UInt8]]? {
    checkRank(root)
    let tag = begin("gather at \(root)", byteCount: bytes.count)
    guard rank == root else {
      try link.wait(for: link.startSend(Payload(bytes), to: [root], tag: tag))
      return nil
    }
    return try startExchange(own: Payload(bytes), sends: [], tag: tag).finish().map(\.array)
  }

  package func startAllGather(_ payload: Payload) throws -> PendingOperation {
    let tag = begin("allGather", byteCount: payload.count)
    let sends = try link.startSend(payload, to: peers, tag: tag)
    return try PendingOperation(
      startExchange(own: payload, sends: sends, tag: tag), name: "allGather")
  }

  package func startAllToAll(_ payloads: [Payload]) throws -> PendingOperation {
    require(payloads.count == size, "\(payloads.count) payloads for \(size) ranks")
    let tag = begin("allToAll", byteCount: payloads.reduce(0) { $0 + $1.count })
    let sends = try peers.flatMap { try link.startSend(payloads[$0], to: [$0], tag: tag) }
    return try PendingOperation(
      startExchange(own: payloads[rank], sends: sends, tag: tag), name: "allToAll")
  }

  package func startShift(_ payload: Payload, by distance: Int) throws -> PendingOperation {
    let tag = begin("shift by \(distance)", byteCount: payload.count)
    let next = ringNeighbor(distance)
    var sends: [any LinkMessage] = []
    var receive: (any LinkMessage)?
    if next != rank {
      sends = try link.startSend(payload, to: [next], tag: tag)
      receive = try link.startReceive(from: ringNeighbor(-distance), tag: tag)
    }
    return PendingOperation(
      StartedExchange(link: link, own: payload, sends: sends, receives: [receive]), name: "shift")
  }

  package func split(color: Int, key: Int) throws -> any Transport {
    require(color >= 0, "color \(color) of a split")
    link.history.record("split", groupSize: size, byteCount: 0)
    return LinkTransport(try link.split(color: color, key: key))
  }

  // MARK: Parts

  /// The other ranks, starting after this one so that not all begin with the same.
  private var peers: [Int] { (1..<max(size, 1)).map { (rank + $0) % size } }

  private func begin(_ name: String, byteCount: Int) -> Int {
    link.history.record(name, groupSize: size, byteCount: byteCount)
    defer { collectiveCount += 1 }
    return Self.firstCollectiveTag + collectiveCount % Self.collectiveTagCount
  }

  private func take(from peer: Int, tag: Int) throws -> Payload {
    let message = try link.startReceive(from: peer, tag: tag)
    try link.wait(for: [message])
    return message.received()
  }

  private func startExchange(
    own: Payload, sends: [any LinkMessage], tag: Int
  ) throws -> StartedExchange<Link> {
    let receives = try (0..<size).map { peer in
      peer == rank ? nil : try link.startReceive(from: peer, tag: tag)
    }
    return StartedExchange(link: link, own: own, sends: sends, receives: receives)
  }

  private func checkRank(_ peer: Int) {
    require(peer >= 0 && peer < size, "rank \(peer) in a group of \(size)")
  }

  private func checkMessage(peer: Int, tag: Int) {
    checkRank(peer)
    require(peer != rank, "rank \(rank) exchanges messages with itself")
    require(
      tag >= 0 && tag < Self.firstCollectiveTag, "tag \(tag), not below \(Self.firstCollectiveTag)")
  }
}

/// Messages to and from all peers, waited for together.
private final class StartedExchange<Link: MessageLink>: StartedOperation {
  private let link: Link
  private let own: Payload
  private let sends: [any LinkMessage]
  /// In the order of the result; nil where this rank's own payload stands.
  private let receives: [(any LinkMessage)?]

  init(link: Link, own: Payload, sends: [any LinkMessage], receives: [(any LinkMessage)?]) {
    self.link = link
    self.own = own
    self.sends = sends
    self.receives = receives
  }

  var isBroken: Bool { link.isBroken }

  private var messages: [any LinkMessage] { sends + receives.compactMap(\.self) }

  func advance() throws -> Bool {
    // Every message gets its chance, also when one before it is not through.
    try messages.reduce(true) { allDone, message in try message.advance() && allDone }
  }

  func finish() throws -> [Payload] {
    try link.wait(for: messages)
    return receives.map { $0?.received() ?? own }
  }
}
