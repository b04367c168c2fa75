// A transport that writes down what passes through it, for traffic tests ("a step issues exactly
// these collectives and these bytes") and for the traffic table of a run.

import MeshLayout
package import MessagePassing

/// What one rank sent, over all groups that came from one recording transport.
package final class TrafficLog {
  /// One operation of this rank.
  package struct Entry: Equatable, Sendable {
    package let name: String
    package let groupSize: Int
    /// Payload bytes that this rank sends to other ranks.
    package let sentByteCount: Int
    /// Of these, the bytes that leave the node.
    package let crossNodeByteCount: Int
    /// The ranks of the group that this rank sends to.
    package let peers: [Int]

    package init(
      name: String, groupSize: Int, sentByteCount: Int, crossNodeByteCount: Int, peers: [Int]
    ) {
      self.name = name
      self.groupSize = groupSize
      self.sentByteCount = sentByteCount
      self.crossNodeByteCount = crossNodeByteCount
      self.peers = peers
    }
  }

  package private(set) var entries: [Entry] = []

  package init() {}

  package var sentByteCount: Int { entries.reduce(0) { $0 + $1.sentByteCount } }
  package var crossNodeByteCount: Int { entries.reduce(0) { $0 + $1.crossNodeByteCount } }

  /// Calls and bytes sent by operation name.
  package var totals: [String: (callCount: Int, sentByteCount: Int)] {
    entries.reduce(into: [:]) { totals, entry in
      totals[entry.name, default: (0, 0)].callCount += 1
      totals[entry.name, default: (0, 0)].sentByteCount += entry.sentByteCount
    }
  }

  package func removeAll() { entries.removeAll() }

  func record(_ entry: Entry) { entries.append(entry) }
}

/// Wraps a transport and records every operation in `log`; groups split off share the log.
package final class RecordingTransport: Transport {
  package let log: TrafficLog
  private let base: any Transport

  package init(_ base: any Transport, log: TrafficLog = TrafficLog()) {
    self.base = base
    self.log = log
  }

  package var rank: Int { base.rank }
  package var size: Int { base.size }
  package func isSameNode(_ peer: Int) -> Bool { base.isSameNode(peer) }

  package func send(_ bytes: [UInt8], to peer: Int, tag: Int) throws {
    record("send", [peer: bytes.count])
    try base.send(bytes, to: peer, tag: tag)
  }

  package func startSend(_ payload: Payload, to peer: Int, tag: Int) throws -> PendingOperation {
    record("send", [peer: payload.count])
    return try base.startSend(payload, to: peer, tag: tag)
  }

  package func receive(from peer: Int, tag: Int) throws -> [UInt8] {
    record("receive", [:])
    return try base.receive(from: peer, tag: tag)
  }

  package func barrier() throws {
    record("barrier", [:])
    try base.barrier()
  }

  package func broadcast(_ bytes: [UInt8], root: Int) throws -> [UInt8] {
    // What a rank passes on is known only when it is here.
    let payload = try base.broadcast(bytes, root: root)
    let children = BinomialTree(rank: rank, root: root, size: size).children
    record("broadcast", sending(payload.count, to: children))
    return payload
  }

  package func gather(_ bytes: [UInt8], root: Int) throws -> [[UInt8]]? {
    record("gather", sending(bytes.count, to: [root]))
    return try base.gather(bytes, root: root)
  }

  package func startAllToAll(_ payloads: [Payload]) throws -> PendingOperation {
    record("allToAll", sending(payloads))
    return try base.startAllToAll(payloads)
  }

  package func startAllGather(_ payload: Payload) throws -> PendingOperation {
    record("allGather", sending(payload.count, to: Array(0..<size)))
    return try base.startAllGather(payload)
  }

  package func startShift(_ payload: Payload, by distance: Int) throws -> PendingOperation {
    record("shift", sending(payload.count, to: [ringNeighbor(distance)]))
    return try base.startShift(payload, by: distance)
  }

  package func split(color: Int, key: Int) throws -> any Transport {
    record("split", [:])
    return RecordingTransport(try base.split(color: color, key: key), log: log)
  }

  package func abandon(_ error: any Error) { base.abandon(error) }

  private func sending(_ byteCount: Int, to peers: [Int]) -> [Int: Int] {
    Dictionary(uniqueKeysWithValues: peers.filter { $0 != rank }.map { ($0, byteCount) })
  }

  private func sending(_ payloads: [Payload]) -> [Int: Int] {
    Dictionary(
      uniqueKeysWithValues: payloads.enumerated().filter { $0.offset != rank }
        .map { ($0.offset, $0.element.count) })
  }

  /// - Parameter byteCounts: by receiving rank.
  private func record(_ name: String, _ byteCounts: [Int: Int]) {
    log.record(
      .init(
        name: name, groupSize: size, sentByteCount: byteCounts.values.reduce(0, +),
        crossNodeByteCount: byteCounts.reduce(0) { $0 + (isSameNode($1.key) ? 0 : $1.value) },
        peers: byteCounts.keys.sorted()))
  }
}
