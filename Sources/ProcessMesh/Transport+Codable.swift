// Values as JSON between ranks: plans, configurations, piece lists. Not for tensors.

import Basics
import Foundation

extension Transport {
  /// The value of `root` on every rank; other ranks pass nil.
  /// - Precondition: `root` passes a value.
  /// - Throws: `malformedPayload` when the value does not decode.
  /// - Collective: over the group; `root` and the type must agree.
  package func broadcast<Value: Codable>(value: Value?, root: Int) throws -> Value {
    if rank == root { require(value != nil, "root \(root) broadcasts nothing") }
    // An encoding that fails on the root must not leave the others waiting.
    let encoded = try agreeing { rank == root ? try Self.encode(value) : [] }
    return try decode(broadcast(encoded, root: root), from: root)
  }

  /// The values of all ranks, by rank, on every rank.
  /// - Throws: `malformedPayload` when a value does not decode.
  /// - Collective: over the group; the type must agree.
  package func allGather<Value: Codable>(value: Value) throws -> [Value] {
    let encoded = try agreeing { try Self.encode(value) }
    return try allGather(encoded).enumerated().map { try decode($0.element, from: $0.offset) }
  }

  private static func encode(_ value: some Encodable) throws -> [UInt8] {
    Array(try JSONEncoder().encode(value))
  }

  private func decode<Value: Decodable>(_ bytes: [UInt8], from peer: Int) throws -> Value {
    do {
      return try JSONDecoder().decode(Value.self, from: Foundation.Data(bytes))
    } catch {
      throw PeerError(
        code: .malformedPayload, rank: peer, message: "sent no \(Value.self): \(error)",
        cause: error)
    }
  }
}
