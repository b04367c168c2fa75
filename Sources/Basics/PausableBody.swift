// A body that pauses in the middle and goes on later: it has a thread of its own, which runs only while somebody
// waits in `resume`.

import Dispatch
import Foundation

/// `@unchecked Sendable` because of its two threads one runs at a time: the semaphores hand everything that
/// either has written over to the other.
package final class PausableBody: @unchecked Sendable {
  private let go = DispatchSemaphore(value: 0)
  private let back = DispatchSemaphore(value: 0)
  private let adopt: () -> Void
  private var body: (() -> Void)?
  private var thread: Thread?
  package private(set) var isFinished = false

  /// - Parameter adopt: called on a thread that takes over, before it goes on.
  package init(adopt: @escaping () -> Void, _ body: @escaping () -> Void) {
    self.adopt = adopt
    self.body = body
  }

  /// Runs the body from where it paused, until it pauses again or ends.
  /// - Precondition: it has not ended.
  package func resume() {
    require(!isFinished, "a body that has ended is resumed")
    if thread == nil { start() }
    go.signal()
    back.wait()
    adopt()
  }

  /// Goes back to whoever has resumed the body. Called by the body.
  package func pause() {
    back.signal()
    go.wait()
    adopt()
  }

  private func start() {
    let thread = Thread { [self] in
      go.wait()
      adopt()
      body?()
      // Nothing that it held may live on: its memory belongs to the arena of the rank.
      body = nil
      isFinished = true
      back.signal()
    }
    thread.name = "w2svd microbatch"
    thread.stackSize = 64 << 20
    self.thread = thread
    thread.start()
  }
}
