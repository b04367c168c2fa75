// What the exchange moved and what that cost, for metrics and the report.

/// What a message is made of. Statistics and measurements are kept by kind, since ratios differ.
package enum TrafficKind: String, CaseIterable, Codable, CodingKeyRepresentable, Sendable {
  case gradients
  case parameters
  /// Exponential moving averages of parameters.
  case movingAverages
  /// Tokens and heads between the ranks of a sequence-parallel group.
  case activations
}

/// Sums since the last `take()` of one rank.
package struct ExchangeStatistics: Codable, Equatable, Sendable {
  /// Sums over the messages of one kind.
  package struct Traffic: Codable, Equatable, Sendable {
    /// Bytes of the words sent to peers, before coding; a word sent to two peers counts twice.
    package var rawByteCount = 0
    /// Bytes sent to peers, headers included.
    package var wireByteCount = 0
    /// Messages sent to peers.
    package var messageCount = 0
    package var encodeSeconds = 0.0
    package var decodeSeconds = 0.0
    /// Time in the transport: starting transfers and waiting for them.
    package var waitSeconds = 0.0

    package init() {}

    /// How often the wire bytes go into the raw ones; 1 when nothing was sent.
    package var ratio: Double {
      wireByteCount == 0 ? 1 : Double(rawByteCount) / Double(wireByteCount)
    }

    package static func += (sum: inout Traffic, term: Traffic) {
      sum.rawByteCount += term.rawByteCount
      sum.wireByteCount += term.wireByteCount
      sum.messageCount += term.messageCount
      sum.encodeSeconds += term.encodeSeconds
      sum.decodeSeconds += term.decodeSeconds
      sum.waitSeconds += term.waitSeconds
    }
  }

  package private(set) var traffic: [TrafficKind: Traffic] = [:]

  package init() {}

  /// The sums of one kind; zeros when nothing of it was sent.
  package subscript(kind: TrafficKind) -> Traffic {
    get { traffic[kind] ?? Traffic() }
    set { traffic[kind] = newValue }
  }

  /// The sum over all kinds.
  package var total: Traffic { traffic.values.reduce(into: Traffic()) { $0 += $1 } }

  /// Adds what another rank or step sent.
  package static func += (sum: inout ExchangeStatistics, term: ExchangeStatistics) {
    for (kind, traffic) in term.traffic { sum[kind] += traffic }
  }

  /// The statistics so far; they start again from zero.
  package mutating func take() -> ExchangeStatistics {
    defer { self = ExchangeStatistics() }
    return self
  }
}
