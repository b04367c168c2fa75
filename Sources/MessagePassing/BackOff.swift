// How a rank waits (contract 4.10): ranks may outnumber cores, so a waiting rank first tests, then
// offers its core to others, then sleeps longer and longer. No asynchronous progress is lost: MPI
// moves messages only inside its own calls anyway.

import Foundation

/// One wait, from its first test to its end.
struct BackOff {
  private static let testCount = 32
  private static let yieldTime = Duration.microseconds(300)
  private static let longestSleep: UInt32 = 200

  private let start = ContinuousClock.now
  private var pauseCount = 0
  private var lastProgress = ContinuousClock.now
  private var sleepMicroseconds: UInt32 = 20

  /// Since the wait began.
  var elapsed: Duration { ContinuousClock.now - start }

  /// Whether the wait has come to sleeping; only then is the clock worth a watchdog's look.
  private(set) var isSleeping = false

  /// Something moved: more may follow soon.
  mutating func noteProgress() {
    self.lastProgress = .now
    pauseCount = 0
    sleepMicroseconds = 20
    isSleeping = false
  }

  /// Lets time pass before the next test.
  mutating func pause() {
    pauseCount += 1
    if pauseCount <= Self.testCount { return }
    if ContinuousClock.now - lastProgress < Self.yieldTime {
      sched_yield()
      return
    }
    isSleeping = true
    usleep(sleepMicroseconds)
    sleepMicroseconds = min(sleepMicroseconds * 2, Self.longestSleep)
  }
}
