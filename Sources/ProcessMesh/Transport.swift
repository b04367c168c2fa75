// One rank's endpoint of one group of ranks: what every layer above uses to talk to its peers.
//
// Payloads are byte arrays of any size, which may differ by rank; sizes travel with them. Ranks
// call the collectives of a group in the same order. A wait backs off (contract 4.10). Once an
// operation has thrown, the group is broken: the only way on is out (contract 4.9).

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
  /// All ranks' bytes, by rank, on every rank.
  /// - Collective: over the group.
  /// - Cost: every rank sends its bytes `size - 1` times.
  func allGather(_ bytes: [UInt8]) throws -> [[UInt8]]
  /// Element r of the result is what rank r passed at this rank's index.
  /// - Precondition: one payload for every rank.
  /// - Collective: over the group.
  func allToAll(_ payloads: [[UInt8]]) throws -> [[UInt8]]

  /// Starts `allToAll`; other work and other collectives may go on before `wait()`.
  /// - Collective: over the group.
  func startAllToAll(_ payloads: [[UInt8]]) throws -> PendingOperation
  /// Starts `allGather`.
  /// - Collective: over the group.
  func startAllGather(_ bytes: [UInt8]) throws -> PendingOperation

  /// The group of the ranks that passed the same `color`, ordered by `key`, then by rank.
  /// - Precondition: `color >= 0`.
  /// - Collective: over the group.
  func split(color: Int, key: Int) throws -> any Transport
}

extension Transport {
  package var isRoot: Bool { rank == 0 }

  /// Whether the whole group lives on one node.
  package var isOneNode: Bool { (0..<size).allSatisfy(isSameNode) }
}
