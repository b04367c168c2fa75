import Foundation
import TestSupport
import Testing

@testable import Checkpoints

struct RunLockTests {
  @Test func `a second run in the same folder is told who holds it`() throws {
    try withTemporaryFolder { folder in
      let run = folder.appending(path: "runs/a")
      let lock = try RunLock(runFolder: run)
      let error = #expect(throws: CheckpointError.self) { try RunLock(runFolder: run) }
      #expect(error?.code == .folderInUse)
      #expect(
        error?.message.contains(
          "another run (process \(ProcessInfo.processInfo.processIdentifier) on")
          == true)
      _ = try RunLock(runFolder: folder.appending(path: "runs/b"))
      withExtendedLifetime(lock) {}
    }
  }

  @Test func `a folder whose run is over is free`() throws {
    try withTemporaryFolder { folder in
      for _ in 0..<3 { _ = try RunLock(runFolder: folder) }
    }
  }
}
