// Elements on their way between memory and a file while the caller computes.

import Dispatch
import Synchronization

/// One transfer. It holds its buffer until nobody touches it any more, and is let go by the thread that began
/// it, as memory of an arena must be.
package final class FileTransfer<Element: BitwiseCopyable> {
  package let buffer: Buffer<Element>
  private let state: TransferState

  fileprivate init(_ buffer: Buffer<Element>, _ state: TransferState) {
    self.buffer = buffer
    self.state = state
  }

  /// Returns when the elements have arrived.
  package func wait() throws(SystemCallError) {
    if let error = state.wait() { throw error }
  }

  deinit { _ = state.wait() }
}

/// What both threads see of a transfer.
private final class TransferState: Sendable {
  private let group = DispatchGroup()
  private let error = Mutex<SystemCallError?>(nil)

  init() { group.enter() }

  func finish(_ error: SystemCallError?) {
    self.error.withLock { $0 = error }
    group.leave()
  }

  func wait() -> SystemCallError? {
    group.wait()
    return error.withLock { $0 }
  }
}

/// A file whose reads and writes are carried out in order by a thread of its own.
package final class StreamedFile {
  private let file: PositionedFile
  private let queue: DispatchQueue

  package init(_ file: PositionedFile) {
    self.file = file
    queue = DispatchQueue(label: "w2svd file \(file.path)")
  }

  /// Begins to write all of `buffer` at byte `offset`; until it is through nobody may write the buffer.
  package func write<Element>(_ buffer: Buffer<Element>, at offset: Int) -> FileTransfer<Element> {
    transfer(buffer) { [file] bytes throws(SystemCallError) in
      try file.write(bytes.bytes, at: offset)
    }
  }

  /// Begins to fill `buffer` from byte `offset` on; until it is through nobody may touch the buffer.
  package func read<Element>(into buffer: Buffer<Element>, at offset: Int) -> FileTransfer<Element>
  {
    transfer(buffer) { [file] bytes throws(SystemCallError) in
      try file.read(into: &bytes, at: offset)
    }
  }

  private func transfer<Element>(
    _ buffer: Buffer<Element>,
    _ body: @escaping @Sendable (inout MutableRawSpan) throws(SystemCallError) -> Void
  ) -> FileTransfer<Element> {
    let state = TransferState()
    // Safe because the transfer holds the buffer until the state says that the work is done.
    nonisolated(unsafe) let base = unsafe UnsafeMutableRawBufferPointer(
      start: buffer.base, count: buffer.count * MemoryLayout<Element>.stride)
    queue.async {
      do throws(SystemCallError) {
        var bytes = unsafe base.mutableBytes
        try body(&bytes)
        state.finish(nil)
      } catch {
        state.finish(error)
      }
    }
    return FileTransfer(buffer, state)
  }
}
