// The last collectives of a rank, for the day when a job hangs: every rank that waits longer than
// the limit prints its ring once, and the differing last lines show who is where.

import Foundation

/// A ring of the last collectives of one rank, shared by all its groups.
package final class CollectiveHistory {
  /// One collective or message as this rank started it.
  package struct Entry: Equatable, Sendable, CustomStringConvertible {
    package let index: Int
    package let name: String
    package let groupSize: Int
    package let byteCount: Int

    package var description: String {
      "#\(index) \(name), group of \(groupSize), \(byteCount) bytes"
    }
  }

  /// How long a wait may take before the ring is printed; nil: never.
  package var limit: Duration?
  private let capacity: Int
  let worldRank: Int
  private let report: (String) -> Void
  private var entries: [Entry] = []
  private var startedCount = 0
  private var hasReported = false

  /// - Parameter report: where the text goes; standard error unless a test listens.
  package init(
    worldRank: Int, limit: Duration?, capacity: Int = 16,
    report: @escaping (String) -> Void = {
      FileHandle.standardError.write(Foundation.Data($0.utf8))
    }
  ) {
    self.worldRank = worldRank
    self.limit = limit
    self.capacity = capacity
    self.report = report
  }

  /// The last collectives, oldest first.
  package var recent: [Entry] { entries }

  package func record(_ name: String, groupSize: Int, byteCount: Int) {
    if entries.count == capacity { entries.removeFirst() }
    entries.append(
      Entry(index: startedCount, name: name, groupSize: groupSize, byteCount: byteCount))
    startedCount += 1
  }

  /// Prints the ring, once in the life of the rank, if `elapsed` is beyond the limit.
  package func noteWait(of elapsed: Duration) {
    guard let limit, elapsed > limit, !hasReported else { return }
    hasReported = true
    let lines = entries.map { "  \($0)\n" }.joined()
    report(
      "rank \(worldRank) has waited \(elapsed) for its peers; its last collectives:\n\(lines)")
  }
}
