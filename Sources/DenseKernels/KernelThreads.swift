// The threads that one rank's products and attention share.
//
// Work is split by rows, by columns or by heads, never along a sum, so the number of threads changes
// no bit. A part is given to whoever is free; small work stays on the calling thread.

import Dispatch
import Synchronization

enum KernelThreads {
  private static let wanted = Atomic<Int>(1)

  static var count: Int {
    get { wanted.load(ordering: .relaxed) }
    set { wanted.store(newValue, ordering: .relaxed) }
  }

  /// Runs `body` on stretches of `0..<unitCount`, at most one for each thread.
  static func split(_ unitCount: Int, _ body: (Range<Int>) -> Void) {
    let parts = min(count, unitCount)
    guard parts > 1 else { return body(0..<unitCount) }
    withoutActuallyEscaping(body) { body in
      // Safe because parts share no memory that they write, and all are through before this returns.
      nonisolated(unsafe) let shared = body
      DispatchQueue.concurrentPerform(iterations: parts) { part in
        unsafe shared((unitCount * part / parts)..<(unitCount * (part + 1) / parts))
      }
    }
  }
}
