// What the ranks of the `zero` axis cut among them.

/// A stage of ZeRO: each shards what the ones before it do, and one thing more.
/// - Source: ZeRO (1910.02054) §5.
package enum ZeroStage: Int, CaseIterable, Codable, Comparable, Hashable, Sendable {
  /// Moments and averages; every rank holds all parameters and, in its turn, all gradients.
  case optimizer = 1
  /// And gradients: a block's gradient is summed at its owners as soon as it is complete.
  case gradients = 2
  /// And parameters: a block's parameters are gathered when it runs, and let go afterwards.
  case parameters = 3

  package static func < (left: ZeroStage, right: ZeroStage) -> Bool {
    left.rawValue < right.rawValue
  }
}
