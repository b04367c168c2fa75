// Messages between threads of one process: a mailbox per rank, queues by (group, sender, tag).
// A send never waits. A wait ends with an error when a rank has failed, or when the sender has
// left without sending, so a test fails instead of hanging.

import Basics
import Foundation
package import MessagePassing

/// The incoming messages of one rank.
///
/// `@unchecked Sendable` because every access to the stored state holds `condition`'s lock.
final class Mailbox: @unchecked Sendable {
  struct Key: Hashable {
    let group: GroupPath
    let source: Int
    let tag: Int
  }

  private let condition = NSCondition()
  private var queues: [Key: [Payload]] = [:]
  private var failure: PeerError?
  private var departed: Set<Int> = []

  func put(_ payload: Payload, at key: Key) {
    change { queues[key, default: []].append(payload) }
  }

  func fail(with error: PeerError) {
    change { if failure == nil { failure = error } }
  }

  func noteDeparture(ofWorldRank rank: Int) {
    change { _ = departed.insert(rank) }
  }

  /// Whether a rank has failed.
  var hasFailed: Bool {
    condition.lock()
    defer { condition.unlock() }
    return failure != nil
  }

  /// The next message at `key`, or nil if none is here yet.
  func take(at key: Key, fromWorldRank sender: Int) throws -> Payload? {
    condition.lock()
    defer { condition.unlock() }
    return try takeLocked(at: key, fromWorldRank: sender)
  }

  /// Waits for the next message at `key`.
  func waitForMessage(
    at key: Key, fromWorldRank sender: Int, history: CollectiveHistory
  ) throws -> Payload {
    condition.lock()
    defer { condition.unlock() }
    let start = ContinuousClock.now
    while true {
      if let payload = try takeLocked(at: key, fromWorldRank: sender) { return payload }
      if history.limit == nil {
        condition.wait()
      } else {
        _ = condition.wait(until: Date(timeIntervalSinceNow: 0.02))
        history.noteWait(of: ContinuousClock.now - start)
      }
    }
  }

  private func takeLocked(at key: Key, fromWorldRank sender: Int) throws -> Payload? {
    if var queue = queues[key] {
      // Emptied queues go, since every collective uses a tag of its own.
      let payload = queue.removeFirst()
      queues[key] = queue.isEmpty ? nil : queue
      return payload
    }
    if let failure { throw failure }
    if departed.contains(sender) {
      throw PeerError(
        code: .rankFailed, rank: sender, message: "ended while a peer waited for its message")
    }
    return nil
  }

  private func change(_ body: () -> Void) {
    condition.lock()
    body()
    condition.broadcast()
    condition.unlock()
  }
}

/// Names a group the same way on all its ranks: the splits (number, color) that led to it.
struct GroupPath: Hashable, Sendable {
  var splits: [Int] = []
}

/// A rank's ends of the messages of a group of threads.
package final class InProcessLink: MessageLink {
  package let rank: Int
  package let history: CollectiveHistory
  private let group: GroupPath
  /// World ranks of the group, by rank.
  private let members: [Int]
  /// All mailboxes, by world rank.
  private let mailboxes: [Mailbox]
  /// The node of every world rank.
  private let nodes: [Int]
  private var splitCount = 0

  init(
    rank: Int, members: [Int], group: GroupPath, mailboxes: [Mailbox], nodes: [Int],
    history: CollectiveHistory
  ) {
    self.rank = rank
    self.members = members
    self.group = group
    self.mailboxes = mailboxes
    self.nodes = nodes
    self.history = history
  }

  package var size: Int { members.count }

  package var isBroken: Bool { mailboxes[members[rank]].hasFailed }

  package func isSameNode(_ peer: Int) -> Bool { nodes[members[peer]] == nodes[members[rank]] }

  package func adoptThread() {}

  package func abandon(_ error: any Error) {
    let failure = PeerError(
      code: .rankFailed, rank: members[rank], message: "failed: \(error)", cause: error)
    for mailbox in mailboxes { mailbox.fail(with: failure) }
  }

  package func startSend(
    _ payload: Payload, to peers: [Int], tag: Int
  ) throws -> [any LinkMessage] {
    for peer in peers {
      mailboxes[members[peer]].put(payload, at: .init(group: group, source: rank, tag: tag))
    }
    return []
  }

  package func startReceive(from peer: Int, tag: Int) throws -> any LinkMessage {
    Incoming(
      mailbox: mailboxes[members[rank]], key: .init(group: group, source: peer, tag: tag),
      sender: members[peer], history: history)
  }

  package func wait(for messages: [any LinkMessage]) throws {
    for message in messages {
      guard let incoming = message as? Incoming else {
        trap("a message of another link")
      }
      try incoming.wait()
    }
  }

  package func split(color: Int, key: Int) throws -> InProcessLink {
    // A tag outside those of messages and collectives; the splits of a group are numbered.
    let tag = -1 - splitCount
    splitCount += 1
    let others = (0..<size).filter { $0 != rank }
    _ = try startSend(Payload([UInt8]([color, key])), to: others, tag: tag)
    var joined: [(key: Int, rank: Int)] = [(key, rank)]
    for peer in others {
      let message = try startReceive(from: peer, tag: tag)
      try wait(for: [message])
      let numbers = message.received().array.integers
      if numbers[0] == color { joined.append((numbers[1], peer)) }
    }
    joined.sort { $0 < $1 }
    guard let newRank = joined.firstIndex(where: { $0.rank == rank }) else {
      trap("rank \(rank) is not in its own group")
    }
    return InProcessLink(
      rank: newRank, members: joined.map { members[$0.rank] },
      group: GroupPath(splits: group.splits + [splitCount, color]), mailboxes: mailboxes,
      nodes: nodes, history: history)
  }
}

private final class Incoming: LinkMessage {
  private let mailbox: Mailbox
  private let key: Mailbox.Key
  private let sender: Int
  private let history: CollectiveHistory
  private var payload: Payload?

  init(mailbox: Mailbox, key: Mailbox.Key, sender: Int, history: CollectiveHistory) {
    self.mailbox = mailbox
    self.key = key
    self.sender = sender
    self.history = history
  }

  func advance() throws -> Bool {
    if payload == nil { payload = try mailbox.take(at: key, fromWorldRank: sender) }
    return payload != nil
  }

  func wait() throws {
    if payload == nil {
      payload = try mailbox.waitForMessage(at: key, fromWorldRank: sender, history: history)
    }
  }

  func received() -> Payload {
    guard let payload else { trap("a message was read before it was here") }
    return payload
  }
}
