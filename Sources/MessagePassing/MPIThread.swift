// MPI is started with MPI_THREAD_SERIALIZED: every call comes from the thread that started it, or the one
// that has taken over since, one at a time.

import Foundation
import Synchronization

/// The one thread that may call MPI.
package enum MPIThread {
  private struct Owner: Sendable {
    let thread: pthread_t
    let name: String
  }

  private static let owner = Mutex<Owner?>(nil)

  /// Makes the calling thread the one that may call MPI. The one before has handed over to it: what it did
  /// happened before, and it makes no call until it adopts again.
  package static func adoptCurrent() {
    owner.withLock { $0 = Owner(thread: pthread_self(), name: currentName) }
  }

  /// Traps, naming both threads, unless the calling thread started MPI.
  package static func preconditionIsCurrent() {
    // `fatalError`, since an optimized `precondition` does not print its message.
    guard let current = owner.withLock(\.self) else {
      fatalError("MPI was called before MPIEnvironment.start()")
    }
    if pthread_equal(current.thread, pthread_self()) == 0 {
      fatalError("MPI was called on \(currentName), but it belongs to \(current.name)")
    }
  }

  private static var currentName: String {
    if Thread.isMainThread { return "the main thread" }
    let name = Thread.current.name ?? ""
    return "thread '\(name.isEmpty ? "unnamed" : name)'"
  }
}
