// One rank's endpoint of one group of ranks: what every layer above uses to talk to its peers.
//
// Payloads are bytes of any number, which may differ by rank; sizes travel with them. Ranks
// call the collectives of a group in the same order. A wait backs off (contract 4.10). Once an
// operation has thrown, the group is broken: the only way on is out (contract 4.9).

package import MessagePassing

/// An endpoint of a group. Not `Sendable`: it is used from the thread that got it.
package protocol Transport: AnyObject {
  /// Who this endpoint is, in `0..<size`.
  var rank: Int { get }
  /// How many ranks the group has.
  var size: Int { get }
  /// Whether messages to `peer` stay inside this node's memory.
  func isSameNode(_ peer: Int) -> Bool

  /// Sends to another rank; may return only when the peer has asked for the message.
  /// - Precondition: `peer` is another rank; `tag` is in `0..<4096`.
  func send(_ bytes: [UInt8], to peer: Int, tag: Int) throws
  /// Starts sending to another rank; other work and other messages may go on before `wait()`, which returns
  /// no payload.
  /// - Precondition: as `send`; nobody changes the payload any more.
  func startSend(_ payload: Payload, to peer: Int, tag: Int) throws -> PendingOperation
  /// The next message of `peer` with `tag`, in the order they were sent.
  func receive(from peer: Int, tag: Int) throws -> [UInt8]

  /// Returns when all ranks have called it.
  /// - Collective: over the group.
  func barrier() throws
  /// The bytes of `root` on every rank; what other ranks pass is ignored.
  /// - Collective: over the group; `root` must agree.
  /// - Cost: root sends log₂(size) copies, a binomial tree.
  func broadcast(_ bytes: [UInt8], root: Int) throws -> [UInt8]
  /// All ranks' bytes, by rank, at `root`; nil elsewhere.
  /// - Collective: over the group; `root` must agree.
  func gather(_ bytes: [UInt8], root: Int) throws -> [[UInt8]]?

  /// Starts sending each rank its payload; element r of what `wait()` returns is what rank r passed at
  /// this rank's index. Other work and other collectives may go on before `wait()`.
  /// - Precondition: one payload for every rank; nobody changes them any more.
  /// - Collective: over the group.
  func startAllToAll(_ payloads: [Payload]) throws -> PendingOperation
  /// Starts sending this rank's payload to all; `wait()` returns all of them, by rank.
  /// - Precondition: nobody changes the payload any more.
  /// - Collective: over the group.
  /// - Cost: every rank sends its bytes `size - 1` times.
  func startAllGather(_ payload: Payload) throws -> PendingOperation
  /// Starts sending this rank's payload to the rank `distance` after it, cyclically; `wait()` returns one
  /// payload, that of the rank `distance` before it.
  /// - Precondition: nobody changes the payload any more; it may be one that came in.
  /// - Collective: over the group; `distance` must agree.
  /// - Cost: every rank sends its bytes once.
  func startShift(_ payload: Payload, by distance: Int) throws -> PendingOperation

  /// The group of the ranks that passed the same `color`, ordered by `key`, then by rank.
  /// - Precondition: `color >= 0`.
  /// - Collective: over the group.
  func split(color: Int, key: Int) throws -> any Transport

  /// Ends the job for all ranks, also those outside of this group, where this rank can neither go on with
  /// the collectives that the others are in nor throw. Processes: it says why and aborts the job, and does not
  /// return. Threads: from now on the waits of all ranks throw, this one's too.
  func abandon(_ error: any Error)
}

extension Transport {
  package func startAllGather(_ bytes: [UInt8]) throws -> PendingOperation {
    try startAllGather(Payload(bytes))
  }

  package func startAllToAll(_ bytes: [[UInt8]]) throws -> PendingOperation {
    try startAllToAll(bytes.map { Payload($0) })
  }

  /// All ranks' bytes, by rank, on every rank.
  /// - Collective: over the group.
  package func allGather(_ bytes: [UInt8]) throws -> [[UInt8]] {
    try startAllGather(bytes).waitForArrays()
  }

  /// Element r of the result is what rank r passed at this rank's index.
  /// - Precondition: one element for every rank.
  /// - Collective: over the group.
  package func allToAll(_ bytes: [[UInt8]]) throws -> [[UInt8]] {
    try startAllToAll(bytes).waitForArrays()
  }

  package var isRoot: Bool { rank == 0 }

  /// The rank `distance` after this one, cyclically; before it where `distance` is negative.
  package func ringNeighbor(_ distance: Int) -> Int {
    let step = (rank + distance % size) % size
    return step < 0 ? step + size : step
  }

  /// Whether the whole group lives on one node.
  package var isOneNode: Bool { (0..<size).allSatisfy(isSameNode) }
}
