// Threads that wait for parts of a kernel.
//
// A step of a model asks for hundreds of splits of some 100 µs, so a thread that is through looks for
// the next one for a while before it sleeps: waking a sleeping thread costs tens of microseconds.

import CKernels
import Foundation
import Synchronization

/// The calling thread and `size` − 1 others. One call of `run` at a time.
final class ThreadTeam: Sendable {
  let size: Int
  private let shared: Shared

  init(size: Int) {
    self.size = size
    shared = Shared(helperCount: size - 1)
    for helper in 0..<(size - 1) {
      let thread = Thread { [shared] in shared.help(as: helper) }
      thread.name = "w2svd kernel \(helper + 1)"
      thread.qualityOfService = .userInitiated
      thread.start()
    }
  }

  deinit { shared.end() }

  /// Runs `body` for each of `0..<partCount` and returns when all are through.
  /// - Precondition: at most `size` parts.
  func run(_ partCount: Int, _ body: (Int) -> Void) {
    precondition(partCount <= size, "\(partCount) parts for \(size) threads")
    withoutActuallyEscaping(body) { body in
      // Safe because parts share no memory that they write, and all are through before this returns.
      nonisolated(unsafe) let part = body
      shared.start(partCount) { unsafe part($0) }
      body(0)
      shared.finish()
    }
  }
}

/// What the threads of a team see. Outlives the team until the last helper has left.
private final class Shared: Sendable {
  private struct Work {
    var partCount = 0
    var body: @Sendable (Int) -> Void = { _ in }
  }

  /// Looks before a thread sleeps, about 50 µs.
  private static let lookCount = 2000

  private let helperCount: Int
  private let work = Mutex(Work())
  /// Grows by one with each work, and at the end.
  private let generation = Atomic<Int>(0)
  private let isEnding = Atomic<Bool>(false)
  /// Helpers that are not through.
  private let busyCount = Atomic<Int>(0)
  private let bells: [Bell]

  init(helperCount: Int) {
    self.helperCount = helperCount
    bells = (0..<helperCount).map { _ in Bell() }
  }

  func start(_ partCount: Int, _ body: @escaping @Sendable (Int) -> Void) {
    work.withLock { $0 = Work(partCount: partCount, body: body) }
    busyCount.store(helperCount, ordering: .relaxed)
    announce()
  }

  func finish() {
    var looks = 0
    while busyCount.load(ordering: .acquiring) > 0 {
      looks += 1
      if looks < Self.lookCount { w2svd_pause() } else { sched_yield() }
    }
    work.withLock { $0 = Work() }
  }

  func end() {
    isEnding.store(true, ordering: .relaxed)
    announce()
  }

  private func announce() {
    generation.add(1, ordering: .sequentiallyConsistent)
    for bell in bells { bell.ring() }
  }

  /// The life of a helper. It counts itself off for every work, so that none can miss one.
  func help(as helper: Int) {
    var seen = 0
    while true {
      var looks = 0
      while generation.load(ordering: .sequentiallyConsistent) == seen {
        looks += 1
        if looks < Self.lookCount {
          w2svd_pause()
        } else {
          bells[helper].sleep { generation.load(ordering: .sequentiallyConsistent) == seen }
          looks = 0
        }
      }
      seen += 1
      if isEnding.load(ordering: .relaxed) { return }
      takePart(as: helper)
      busyCount.subtract(1, ordering: .releasing)
    }
  }

  /// A function of its own, so that no reference to the work is left when a helper counts itself off.
  @inline(never)
  private func takePart(as helper: Int) {
    let (partCount, body) = work.withLock { ($0.partCount, $0.body) }
    if helper + 1 < partCount { body(helper + 1) }
  }
}

/// Wakes one thread, if it sleeps.
private final class Bell: Sendable {
  private let isAsleep = Atomic<Bool>(false)
  private let semaphore = DispatchSemaphore(value: 0)

  func ring() {
    if isAsleep.exchange(false, ordering: .sequentiallyConsistent) { semaphore.signal() }
  }

  /// Sleeps until it rings, unless `mustWait` has become false meanwhile.
  func sleep(_ mustWait: () -> Bool) {
    isAsleep.store(true, ordering: .sequentiallyConsistent)
    // Whoever takes the flag back decides: this thread goes on, or a ring is on its way.
    if !mustWait() && isAsleep.exchange(false, ordering: .sequentiallyConsistent) { return }
    semaphore.wait()
  }
}
