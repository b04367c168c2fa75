// SIGTERM and SIGUSR1 mean: finish the step, save, leave with the code for "resume me". The handler
// only sets a flag; the flag travels with each step's reduction, so all ranks stop after the same step.

import Foundation
import Synchronization

package enum StopSignal {
  private static let received = Atomic<Bool>(false)

  /// From now on both signals ask for a gentle stop instead of ending the process.
  package static func install() {
    // Made here, not inside a handler, where nothing may be allocated.
    _ = received.load(ordering: .relaxed)
    signal(SIGTERM) { _ in StopSignal.received.store(true, ordering: .relaxed) }
    signal(SIGUSR1) { _ in StopSignal.received.store(true, ordering: .relaxed) }
  }

  /// Whether this process was asked to stop.
  package static var isReceived: Bool { received.load(ordering: .relaxed) }
}
