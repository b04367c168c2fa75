// Decides per message whether compression pays.
//
// A transfer of S raw bytes over a link of W bytes/s takes S/W raw and S (1/C + 1/(r W) + 1/D)
// coded, with ratio r and codec rates C (in) and D (out) in raw bytes/s. Coding pays iff
//
//     W < (1 - 1/r) / (1/C + 1/D)                                            (serial break-even)
//
// An all-gather sends what it codes once to n peers, so that C counts n times. What is measured as
// W is the exposed rate: wire bytes over the time spent in the transport. A transfer that hides
// behind other work therefore looks fast, and is left alone. Inside one node copies run at memory
// speed, and the answer is always off.
//
// The decision is local to a rank: messages say how they are coded.

package import Compression

/// The two ways in which buckets travel.
package enum ExchangeOperation: String, CaseIterable, Codable, Sendable {
  case reduceScatter
  case allGather
}

/// What was decided for the messages of one kind, and why; for the log.
package struct ExchangeDecision: Codable, Equatable, Sendable, CustomStringConvertible {
  package let operation: ExchangeOperation
  package let kind: TrafficKind
  package let codec: Codec
  package let reason: String

  package var description: String { "\(kind.rawValue) \(operation.rawValue): \(codec), \(reason)" }
}

/// An exponential moving average that starts at its first value.
struct MovingRate: Codable, Equatable, Sendable {
  private(set) var value: Double?

  /// Newer measurements count a quarter: smooth over some ten messages.
  mutating func record(_ sample: Double) {
    guard sample.isFinite, sample > 0 else { return }
    value = value.map { 0.75 * $0 + 0.25 * sample } ?? sample
  }
}

/// Choices and the measurements behind them.
package struct ExchangePolicy: Sendable {
  /// After this many messages one is coded to measure again: ratios and codec rates change.
  static let probeInterval = 256

  private struct Key: Hashable {
    let operation: ExchangeOperation
    let kind: TrafficKind
  }

  private struct Record {
    var ratio = MovingRate()
    var encodeRate = MovingRate()
    var decodeRate = MovingRate()
    var linkRate = MovingRate()
    var messageCount = 0
    var latest: ExchangeDecision?
  }

  package let coding: ExchangeConfiguration.Coding
  /// Whether all ranks share one node's memory.
  package let isOneNode: Bool
  private var records: [Key: Record] = [:]

  package init(coding: ExchangeConfiguration.Coding, isOneNode: Bool) {
    self.coding = coding
    self.isOneNode = isOneNode
  }

  /// Whether any message may be coded; depends only on what all ranks have in common.
  package var mayCode: Bool { coding == .planes || (coding == .auto && !isOneNode) }

  /// The latest decision for each operation and kind, in a fixed order.
  package var decisions: [ExchangeDecision] {
    records.values.compactMap(\.latest).sorted { $0.description < $1.description }
  }

  /// The codec of the next message.
  ///
  /// - Parameters:
  ///   - candidate: the codec that stands against `off`.
  ///   - peerCount: to how many peers one coded message goes.
  package mutating func decide(
    _ operation: ExchangeOperation, _ kind: TrafficKind, candidate: Codec, peerCount: Int = 1
  ) -> ExchangeDecision {
    let key = Key(operation: operation, kind: kind)
    var record = records[key] ?? Record()
    let (isCoded, reason) = verdict(record, peerCount: peerCount)
    record.messageCount += 1
    let decision = ExchangeDecision(
      operation: operation, kind: kind, codec: isCoded ? candidate : .off, reason: reason)
    record.latest = decision
    records[key] = record
    return decision
  }

  private func verdict(_ record: Record, peerCount: Int) -> (isCoded: Bool, reason: String) {
    switch coding {
    case .off: return (false, "exchange.codec is off")
    case .planes: return (true, "exchange.codec is planes")
    case .auto: break
    }
    if isOneNode { return (false, "all ranks share one node's memory") }
    guard let ratio = record.ratio.value, let encodeRate = record.encodeRate.value,
      let decodeRate = record.decodeRate.value, let linkRate = record.linkRate.value
    else { return (true, "measuring link and codec") }
    let limit = Self.breakEven(
      ratio: ratio, encodeRate: encodeRate * Double(peerCount), decodeRate: decodeRate)
    let isCoded = linkRate < limit
    let facts =
      "link \(gigabytes(linkRate)) \(isCoded ? "below" : "not below") break-even "
      + "\(gigabytes(limit)) (ratio \(rounded(ratio, 1_000)), in \(gigabytes(encodeRate)), "
      + "out \(gigabytes(decodeRate)))"
    if record.messageCount % Self.probeInterval == Self.probeInterval - 1 {
      return (true, "measuring again; " + facts)
    }
    return (isCoded, facts)
  }

  /// The link rate below which coding pays, in bytes/s; all rates in raw bytes/s.
  package static func breakEven(ratio: Double, encodeRate: Double, decodeRate: Double) -> Double {
    (1 - 1 / ratio) / (1 / encodeRate + 1 / decodeRate)
  }

  /// Notes what coding gave; `codedByteCount` is that of the message, whatever form it took.
  package mutating func recordEncoding(
    _ operation: ExchangeOperation, _ kind: TrafficKind, rawByteCount: Int, codedByteCount: Int,
    seconds: Double
  ) {
    update(operation, kind) {
      $0.ratio.record(Double(rawByteCount) / Double(codedByteCount))
      $0.encodeRate.record(Double(rawByteCount) / seconds)
    }
  }

  /// Notes what decoding coded messages took.
  package mutating func recordDecoding(
    _ operation: ExchangeOperation, _ kind: TrafficKind, rawByteCount: Int, seconds: Double
  ) {
    update(operation, kind) { $0.decodeRate.record(Double(rawByteCount) / seconds) }
  }

  /// Notes what the transport took for `wireByteCount` sent bytes.
  package mutating func recordTransfer(
    _ operation: ExchangeOperation, _ kind: TrafficKind, wireByteCount: Int, seconds: Double
  ) {
    update(operation, kind) { $0.linkRate.record(Double(wireByteCount) / seconds) }
  }

  private mutating func update(
    _ operation: ExchangeOperation, _ kind: TrafficKind, _ body: (inout Record) -> Void
  ) {
    body(&records[Key(operation: operation, kind: kind), default: Record()])
  }

  private func rounded(_ value: Double, _ scale: Double) -> Double {
    (value * scale).rounded() / scale
  }

  private func gigabytes(_ rate: Double) -> String { "\(rounded(rate / 1e9, 1_000)) GB/s" }
}
