// A started collective. It owns its buffers until `wait()`, so no one can touch memory that is
// still on its way; forgetting it traps, because the peers would wait forever.

import Basics
package import MessagePassing

/// What a transport leaves running; the way in for implementers of `Transport`.
package protocol StartedOperation: AnyObject {
  /// Does what can be done without waiting; true when all is done.
  func advance() throws -> Bool
  /// Waits and hands over the received payloads, by rank where they are of all.
  func finish() throws -> [Payload]
  /// Whether peers are known to have failed, so that nobody waits for this operation any more.
  var isBroken: Bool { get }
}

/// A collective on its way. Must be consumed by `wait()` (or `abandon()`); dropping it traps,
/// also when an error passes by: between start and wait, catch, abandon, rethrow.
package struct PendingOperation: ~Copyable {
  private var operation: (any StartedOperation)?
  private let name: String

  package init(_ operation: any StartedOperation, name: String) {
    self.operation = operation
    self.name = name
  }

  /// Moves the operation on without waiting; true when `wait()` would return at once.
  ///
  /// MPI has no progress thread: call this between pieces of work to overlap.
  package borrowing func advance() throws -> Bool { try operation?.advance() ?? true }

  /// The received payloads: by rank, or the one of a shift.
  package consuming func wait() throws -> [Payload] {
    guard let operation else { trap("\(name) was waited for twice") }
    self.operation = nil
    return try operation.finish()
  }

  /// The received payloads as arrays, by rank.
  package consuming func waitForArrays() throws -> [[UInt8]] { try wait().map(\.array) }

  /// Lets go of the operation on the way out with an error; the group is broken afterwards.
  package consuming func abandon() { operation = nil }

  deinit {
    // On the way out after a peer's failure there is nothing left to wait for.
    if let operation, !operation.isBroken {
      trap("a started \(name) was dropped without wait() or abandon()")
    }
  }
}
