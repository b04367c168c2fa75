// What a rank sees when the world between ranks goes wrong.

/// Another rank failed, or the mesh between ranks did.
package struct PeerError: Error, CustomStringConvertible {
  package enum Code: Equatable, Sendable {
    /// A rank reported an error; `rank` says which.
    case rankFailed
    /// A payload does not decode as what the peer should have sent.
    case malformedPayload
  }

  package let code: Code
  /// The rank that failed: of the group in `agree(on:)` and in payloads, of the world when a wait
  /// ended because of it.
  package let rank: Int
  package let message: String
  package let cause: (any Error)?

  package init(code: Code, rank: Int, message: String, cause: (any Error)? = nil) {
    self.code = code
    self.rank = rank
    self.message = message
    self.cause = cause
  }

  package var description: String { "rank \(rank): \(message)" }
}
