// The threads that the kernels of one rank share.
//
// Work is split by rows, by columns, by heads or by elements, never along a sum, so the number of threads
// changes no bit. A part is given to whoever is free; small work stays on the calling thread.

import Synchronization

enum KernelThreads {
  private static let wanted = Atomic<Int>(1)
  /// Held while parts run: a split inside a part, or of another rank of this process, stays on its own
  /// thread.
  private static let team = Mutex<ThreadTeam?>(nil)

  static var count: Int {
    get { wanted.load(ordering: .relaxed) }
    set { wanted.store(newValue, ordering: .relaxed) }
  }

  /// Runs `body` on stretches of `0..<unitCount`, at most one for each thread.
  static func split(_ unitCount: Int, _ body: (Range<Int>) -> Void) {
    let threads = count
    let parts = min(threads, unitCount)
    guard parts > 1 else { return body(0..<unitCount) }
    let wasFree: Void? = team.withLockIfAvailable { team in
      if team?.size != threads { team = ThreadTeam(size: threads) }
      team?.run(parts) { part in
        body((unitCount * part / parts)..<(unitCount * (part + 1) / parts))
      }
    }
    if wasFree == nil { body(0..<unitCount) }
  }

  /// Elements below which a loop is over before other threads would have begun.
  private static let smallestPart = 1 << 15

  /// Runs `body` on ranges of elements; ranges start at multiples of 64.
  static func splitElements(_ count: Int, _ body: (Range<Int>) -> Void) {
    guard isWorthSplitting(count) else { return body(0..<count) }
    splitAligned(count, body)
  }

  /// Runs `body` on ranges of columns of `rowCount` rows; ranges start at multiples of 64.
  static func splitColumns(_ width: Int, rowCount: Int, _ body: (Range<Int>) -> Void) {
    guard isWorthSplitting(rowCount * width) else { return body(0..<width) }
    splitAligned(width, body)
  }

  /// Runs `body` on ranges of rows of each group, with the group.
  static func splitRows(
    groups: Int, rows: Int, width: Int, _ body: (_ group: Int, _ rows: Range<Int>) -> Void
  ) {
    guard isWorthSplitting(groups * rows * width) else {
      for group in 0..<groups { body(group, 0..<rows) }
      return
    }
    split(groups * rows) { part in
      for group in (part.lowerBound / rows)...((part.upperBound - 1) / rows) {
        let first = max(part.lowerBound - group * rows, 0)
        body(group, first..<min(part.upperBound - group * rows, rows))
      }
    }
  }

  /// Whether loops over so many elements are shared.
  static func isWorthSplitting(_ elementCount: Int) -> Bool {
    count > 1 && elementCount >= 2 * smallestPart
  }

  private static func splitAligned(_ count: Int, _ body: (Range<Int>) -> Void) {
    split((count + 63) / 64) { body(($0.lowerBound * 64)..<min(count, $0.upperBound * 64)) }
  }
}
