// Bytes between memory and files: the checked system calls under everything that is stored.
//
// Reads and writes name their offset, so a file has no position that two readers could disturb.
// It stands beside `Buffer` because only this module and a few others may hold a pointer. Nothing
// here knows what the bytes mean; the callers turn a `SystemCallError` into advice.

import Foundation

/// A system call that failed, with the path it was about.
package struct SystemCallError: Error, CustomStringConvertible {
  package let call: String
  package let path: String
  /// The `errno` of the call; 0 when the file ended before the wanted bytes.
  package let code: Int32

  package var description: String {
    let reason = code == 0 ? "the file ends early" : unsafe String(cString: strerror(code))
    return "\(call) \(path): \(reason)"
  }

  /// The disk, the quota or the permitted file size is used up.
  package var isOutOfSpace: Bool { code == ENOSPC || code == EDQUOT || code == EFBIG }
  package var isMissing: Bool { code == ENOENT || code == ENOTDIR }
}

/// An open file, read and written at named offsets; closed when the last reference goes.
package final class PositionedFile: Sendable {
  package enum Purpose {
    /// An existing file, not changed.
    case reading
    /// A new file, or an existing one emptied.
    case creating
    /// A file made if it is not there, kept as it is: for locks.
    case locking
  }

  package let path: String
  private let descriptor: Int32

  /// Child processes do not inherit the file, so none of them can hold a lock past its owner.
  package init(_ path: String, for purpose: Purpose) throws(SystemCallError) {
    let flags =
      switch purpose {
      case .reading: O_RDONLY
      case .creating: O_RDWR | O_CREAT | O_TRUNC
      case .locking: O_RDWR | O_CREAT
      }
    let opened = unsafe open(path, flags | O_CLOEXEC, 0o644)
    guard opened >= 0 else { throw SystemCallError(call: "open", path: path, code: errno) }
    self.path = path
    self.descriptor = opened
  }

  deinit { close(descriptor) }

  package var byteCount: Int {
    get throws(SystemCallError) {
      let end = lseek(descriptor, 0, SEEK_END)
      guard end >= 0 else { throw SystemCallError(call: "lseek", path: path, code: errno) }
      return Int(end)
    }
  }

  /// Fills `bytes` from the file, starting at byte `offset`.
  /// - Throws: code 0 when the file ends before that.
  package func read(into bytes: inout MutableRawSpan, at offset: Int) throws(SystemCallError) {
    let count = bytes.byteCount
    var done = 0
    while done < count {
      let got = unsafe bytes.withUnsafeMutableBytes { target in
        guard let base = target.baseAddress else { return 0 }
        return unsafe pread(descriptor, base + done, count - done, off_t(offset + done))
      }
      if got < 0 && errno == EINTR { continue }
      guard got > 0 else {
        throw SystemCallError(call: "read", path: path, code: got == 0 ? 0 : errno)
      }
      done += got
    }
  }

  /// Writes all of `bytes`, starting at byte `offset` of the file.
  package func write(_ bytes: RawSpan, at offset: Int) throws(SystemCallError) {
    let count = bytes.byteCount
    var done = 0
    while done < count {
      let put = unsafe bytes.withUnsafeBytes { source in
        guard let base = source.baseAddress else { return 0 }
        return unsafe pwrite(descriptor, base + done, count - done, off_t(offset + done))
      }
      if put < 0 && errno == EINTR { continue }
      guard put > 0 else {
        throw SystemCallError(call: "write", path: path, code: put == 0 ? ENOSPC : errno)
      }
      done += put
    }
  }

  /// Returns when the bytes are on the disk.
  package func synchronize() throws(SystemCallError) {
    guard fsync(descriptor) == 0 else {
      throw SystemCallError(call: "fsync", path: path, code: errno)
    }
  }

  package func truncate(to byteCount: Int) throws(SystemCallError) {
    guard ftruncate(descriptor, off_t(byteCount)) == 0 else {
      throw SystemCallError(call: "ftruncate", path: path, code: errno)
    }
  }

  /// Takes the advisory lock of the file without waiting; false when somebody holds it.
  package func lockIfFree() throws(SystemCallError) -> Bool {
    while true {
      if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { return true }
      if errno == EWOULDBLOCK { return false }
      if errno == EINTR { continue }
      throw SystemCallError(call: "flock", path: path, code: errno)
    }
  }

  /// Makes the names in a folder durable: a rename is on the disk only after this.
  package static func synchronizeFolder(_ path: String) throws(SystemCallError) {
    try PositionedFile(path, for: .reading).synchronize()
  }

  /// Renames in one step; an existing file (not folder) at `target` is replaced.
  package static func move(_ source: String, to target: String) throws(SystemCallError) {
    guard unsafe rename(source, target) == 0 else {
      throw SystemCallError(call: "rename", path: "\(source) to \(target)", code: errno)
    }
  }
}

extension Array where Element: BitwiseCopyable {
  /// The elements as bytes, as `Buffer.withBytes`.
  package func withBytes<Result>(_ body: (RawSpan) throws -> Result) rethrows -> Result {
    try unsafe withUnsafeBytes { bytes in try body(unsafe bytes.bytes) }
  }
}
