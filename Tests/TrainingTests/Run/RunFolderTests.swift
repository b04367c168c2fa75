import Checkpoints
import Foundation
import TestSupport
import Testing

@testable import Training

@Suite struct RunFolderTests {
  @Test func `what killed runs left goes, what a user put there stays`() throws {
    try withTemporaryFolder { folder in
      let run = RunFolder(folder.path + "/")
      let left = ["w2svd-1.tmp", "samples/w2svd-2.tmp"]
      let kept = ["mine.tmp", "w2svd-notes", "samples/clip.mp4"]
      for name in left {
        let place = folder.appending(path: name)
        try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
        try Data([1]).write(to: place.appending(path: "half"))
      }
      for name in kept { try Data([1]).write(to: folder.appending(path: name)) }
      run.removeLeftovers()
      for name in left {
        #expect(!FileManager.default.fileExists(atPath: folder.appending(path: name).path))
      }
      for name in kept {
        #expect(FileManager.default.fileExists(atPath: folder.appending(path: name).path))
      }
    }
  }

  @Test func `a checkpoint has no tables of its own, and a run that is at work none to touch`()
    throws
  {
    try withTemporaryFolder { folder in
      _ = try TinyRun.start(TinyRun.configuration(), in: folder, ranks: 1, stopAt: 3)
      let step = try TinyRun.newestCheckpoint(in: folder)
      let error = #expect(throws: JobError.self) {
        try StoredRun(step.path).evaluate(say: { _ in })
      }
      #expect(error?.exitCode == .configuration)
      #expect(error?.message.contains("give the run folder") == true)
      let lock = try RunLock(runFolder: folder)
      let locked = #expect(throws: CheckpointError.self) {
        try StoredRun(folder.path).evaluate(say: { _ in })
      }
      withExtendedLifetime(lock) {}
      #expect(locked?.code == .folderInUse)
    }
  }
}
