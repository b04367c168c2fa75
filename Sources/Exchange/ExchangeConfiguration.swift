// The options of the exchange (`exchange.*` of the configuration file).

/// How buckets travel.
package struct ExchangeConfiguration: Codable, Equatable, Sendable {
  /// Which codec messages use; every choice gives the same bits.
  package enum Coding: String, CaseIterable, Codable, Sendable {
    /// Words as they are, checksummed.
    case off
    /// Always byte planes (differences where the receiver holds a base).
    case planes
    /// Off inside one node; else measured, per message.
    case auto
  }

  /// Default: `auto`. Effect: bytes on the wire and time spent coding, never the result.
  package var codec: Coding = .auto

  /// Default: 4 MiB. Unit: bytes of raw words that a rank sends per bucket, over all its peers.
  /// Effect: larger buckets pay less latency, smaller ones overlap better and take less memory.
  /// All ranks must have the same value.
  package var bucketByteCount: Int = 4 << 20

  /// Whether exchanges go on while blocks are computed.
  package enum Overlap: String, CaseIterable, Codable, Sendable {
    case on
    case off
  }

  /// Default: `on`. Effect: at ZeRO stages 2 and 3 the parameters of the next block come, and the gradients of the
  /// last one leave, while a block is computed, which takes memory for one more block of each; where ranks share
  /// tokens by all-to-all, queries, keys and values travel while the others are computed. Never the result.
  /// All ranks must have the same value.
  package var overlap: Overlap = .on

  package init() {}

  package init(codec: Coding, bucketByteCount: Int = 4 << 20, overlap: Overlap = .on) {
    self.codec = codec
    self.bucketByteCount = bucketByteCount
    self.overlap = overlap
  }

  /// What is wrong, each with its key path; empty when all is well.
  package func validate() -> [String] {
    let legal = 64 << 10...1 << 30
    if legal.contains(bucketByteCount) { return [] }
    return [
      "exchange.bucketByteCount is \(bucketByteCount); choose between \(legal.lowerBound) (64 KiB) "
        + "and \(legal.upperBound) (1 GiB)"
    ]
  }
}
