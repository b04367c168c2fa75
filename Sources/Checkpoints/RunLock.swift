// One run folder, one run: an advisory lock that the system gives back when the process ends, however
// it ends, so that no stale lock ever stops a restart.

import DenseKernels
package import Foundation

/// Holds `<run>/.lock` until it is released or deallocated.
package final class RunLock: Sendable {
  private let file: PositionedFile

  /// - Throws: `folderInUse` with the process and host that hold it; `inputOutput`.
  package init(runFolder: URL) throws {
    try createFolder(runFolder)
    let path = runFolder.appending(path: ".lock").plainPath
    let file = try explainingFailures { try PositionedFile(path, for: .locking) }
    guard try explainingFailures({ try file.lockIfFree() }) else {
      let holder = (try? readWhole(URL(filePath: path))).map { String(decoding: $0, as: UTF8.self) }
      throw CheckpointError(
        .folderInUse,
        "another run (\(holder.flatMap { $0.isEmpty ? nil : $0 } ?? "process unknown")) is using "
          + "\(runFolder.plainPath); wait for it or choose another folder with --run")
    }
    let holder = Array("process \(ProcessInfo.processInfo.processIdentifier) on \(Self.host)".utf8)
    try explainingFailures(whileWriting: path, bytesNeeded: holder.count) {
      try file.truncate(to: 0)
      try holder.withBytes { try file.write($0, at: 0) }
    }
    self.file = file
  }

  /// The kernel's name of this machine; Foundation would ask the network for one.
  private static var host: String {
    let name = try? String(contentsOfFile: "/proc/sys/kernel/hostname", encoding: .utf8)
    return name?.trimmingCharacters(in: .whitespacesAndNewlines) ?? "this machine"
  }
}
