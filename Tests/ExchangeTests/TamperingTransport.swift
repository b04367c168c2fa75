// A transport that damages what it sends, for tests of what the receiver makes of it.

import MessagePassing
import ProcessMesh

/// Passes everything on to `inner`; collectives of bytes are changed by `tamper` on the way out.
final class TamperingTransport: Transport {
  private let inner: any Transport
  private let tamper: ([UInt8]) -> [UInt8]

  init(_ inner: any Transport, tamper: @escaping ([UInt8]) -> [UInt8]) {
    self.inner = inner
    self.tamper = tamper
  }

  var rank: Int { inner.rank }
  var size: Int { inner.size }
  func isSameNode(_ peer: Int) -> Bool { inner.isSameNode(peer) }

  func send(_ bytes: [UInt8], to peer: Int, tag: Int) throws {
    try inner.send(tamper(bytes), to: peer, tag: tag)
  }
  func startSend(_ payload: Payload, to peer: Int, tag: Int) throws -> PendingOperation {
    try inner.startSend(Payload(tamper(payload.array)), to: peer, tag: tag)
  }
  func receive(from peer: Int, tag: Int) throws -> [UInt8] {
    try inner.receive(from: peer, tag: tag)
  }
  func barrier() throws { try inner.barrier() }
  func broadcast(_ bytes: [UInt8], root: Int) throws -> [UInt8] {
    try inner.broadcast(tamper(bytes), root: root)
  }
  func gather(_ bytes: [UInt8], root: Int) throws -> [[UInt8]]? {
    try inner.gather(tamper(bytes), root: root)
  }
  func startAllToAll(_ payloads: [Payload]) throws -> PendingOperation {
    try inner.startAllToAll(payloads.map { Payload(tamper($0.array)) })
  }
  func startAllGather(_ payload: Payload) throws -> PendingOperation {
    try inner.startAllGather(Payload(tamper(payload.array)))
  }
  func startShift(_ payload: Payload, by distance: Int) throws -> PendingOperation {
    try inner.startShift(Payload(tamper(payload.array)), by: distance)
  }
  func abandon(_ error: any Error) { inner.abandon(error) }

  func split(color: Int, key: Int) throws -> any Transport {
    try inner.split(color: color, key: key)
  }
}
