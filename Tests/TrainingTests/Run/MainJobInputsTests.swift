// What the main job does with folders, videos and models that it is given: what it takes, what it
// refuses, and that nothing is lost either way.

import Checkpoints
import Foundation
import ProcessMesh
import TestSupport
import Testing
import VideoData

@testable import Training

@Suite struct MainJobInputsTests {
  @Test func `a folder that another run holds is refused`() throws {
    try withTemporaryFolder { folder in
      let lock = try RunLock(runFolder: folder)
      let error = try TinyRun.failure(TinyRun.configuration(), in: folder)
      withExtendedLifetime(lock) {}
      #expect(error.exitCode == .other)
      #expect(error.message.contains("another run"))
    }
  }

  @Test func `starting over moves the earlier run aside`() throws {
    let configuration = TinyRun.configuration()
    try withTemporaryFolder { folder in
      let place = folder.appending(path: "run")
      _ = try TinyRun.start(configuration, in: place, ranks: 1, stopAt: 3)
      let end = try TinyRun.start(configuration, in: place, ranks: 2, stopAt: 3, resume: .never)
      #expect(try end.outcome.get() == .resumeMe)
      let aside = folder.appending(path: "run.previous-1")
      #expect(end.words.contains(aside.path))
      #expect(
        try TinyRun.newestCheckpoint(in: aside).lastPathComponent
          == TinyRun.newestCheckpoint(in: place).lastPathComponent)
    }
  }

  @Test func `a checkpoint of another model is refused with every option that differs`() throws {
    try withTemporaryFolder { folder in
      _ = try TinyRun.start(TinyRun.configuration(), in: folder, ranks: 1, stopAt: 3)
      let error = try TinyRun.failure(
        TinyRun.configuration {
          $0.model.heads = 2
          $0.model.singleBlocks = 0
        }, in: folder)
      #expect(error.exitCode == .configuration)
      #expect(error.message.contains("model.heads: is 2"))
      #expect(error.message.contains("model.singleBlocks: is 0"))
    }
  }

  @Test func `a run refuses to go on with other videos`() throws {
    try withTemporaryFolder { folder in
      let videos = folder.appending(path: "videos")
      try FileManager.default.createDirectory(at: videos, withIntermediateDirectories: true)
      let place = folder.appending(path: "run")
      let configuration = TinyRun.configuration { $0.data.folder = videos.path }
      _ = try TinyRun.start(configuration, in: place, ranks: 1, stopAt: 3)
      try VideoWriter().writeMP4(
        ProceduralFace(seed: 1, person: 1).draw(frameCount: 20, height: 32, width: 40),
        to: videos.appending(path: "a.mp4"), upscale: 1)
      let error = try TinyRun.failure(configuration, in: place)
      #expect(error.exitCode == .configuration)
      #expect(error.message.contains("data: the videos are not those"))
      try FileManager.default.removeItem(at: videos.appending(path: "a.mp4"))
      let end = try TinyRun.start(configuration, in: place, ranks: 2)
      #expect(end.words.contains("resuming teach after step"))
    }
  }

  @Test func `a run goes on without its videos, and refuses other ones before it replaces the set`()
    throws
  {
    try withTemporaryFolder { folder in
      let video = folder.appending(path: "a.mp4")
      func write(person: Int) throws {
        try VideoWriter().writeMP4(
          ProceduralFace(seed: 1, person: person).draw(frameCount: 20, height: 32, width: 40),
          to: video)
      }
      try write(person: 0)
      let configuration = TinyRun.configuration { $0.data.paths = [video.path] }
      let place = folder.appending(path: "run")
      _ = try TinyRun.start(configuration, in: place, ranks: 1)
      let stored = place.appending(path: "prepared/source-0.safetensors")
      let before = try Data(contentsOf: stored)
      try write(person: 1)
      let error = try TinyRun.failure(configuration, in: place)
      #expect(error.exitCode == .configuration)
      #expect(error.message.contains("data: the videos are not those"))
      #expect(try Data(contentsOf: stored) == before)
      try FileManager.default.removeItem(at: video)
      let end = try TinyRun.start(configuration, in: place, ranks: 2)
      #expect(end.words.contains("the videos are gone"))
      #expect(try end.outcome.get() == .resumeMe)
      #expect(try !TinyRun.weights(in: place).isEmpty)
    }
  }

  // Before the first video and, at the latest, before the second.
  @Test(arguments: 1...2)
  func `a stop request during preparation ends all ranks with 75, and the next start goes on`(
    stop: Int
  ) throws {
    try withTemporaryFolder { folder in
      let videos = (1...2).map { folder.appending(path: "\($0).mp4") }
      for (person, video) in videos.enumerated() {
        let face = ProceduralFace(seed: 1, person: person)
        try VideoWriter().writeMP4(face.draw(frameCount: 20, height: 32, width: 40), to: video)
      }
      let configuration = TinyRun.configuration { $0.data.paths = videos.map(\.path) }
      let reference = try MainJobTests.Reference(configuration, in: folder)
      let place = folder.appending(path: "run")
      let end = try TinyRun.start(configuration, in: place, ranks: 2, stopAt: stop)
      #expect(try end.outcome.get() == .resumeMe)
      #expect(end.words.contains("stopped on a signal"))
      let prepared = place.appending(path: "prepared")
      #expect(!FileManager.default.fileExists(atPath: prepared.path))
      _ = try TinyRun.start(configuration, in: place, ranks: 1)
      try reference.expectEqual(place, "stopped during preparation")
    }
  }

  @Test func `files that the user named and that are bad end all ranks with code 2`() throws {
    try withTemporaryFolder { folder in
      let text = folder.appending(path: "text.mp4")
      try Data("no video at all".utf8).write(to: text)
      let empty = folder.appending(path: "empty", directoryHint: .isDirectory)
      try FileManager.default.createDirectory(at: empty, withIntermediateDirectories: true)
      let cases: [(String, [String], RunConfiguration, ResumeMode)] = [
        (
          "missing video", ["/nowhere.mp4"],
          TinyRun.configuration { $0.data.paths = ["/nowhere.mp4"] },
          .auto
        ),
        ("text", ["text.mp4"], TinyRun.configuration { $0.data.paths = [text.path] }, .auto),
        (
          "both", ["/nowhere.mp4", "text.mp4"],
          TinyRun.configuration { $0.data.paths = ["/nowhere.mp4", text.path] }, .auto
        ),
        ("texts", ["data.text"], TinyRun.configuration { $0.data.text = text.path }, .auto),
        (
          "no texts", ["data.text", "/nowhere"],
          TinyRun.configuration { $0.data.text = "/nowhere.safetensors" }, .auto
        ),
        (
          "model", ["model.checkpoint"],
          TinyRun.configuration { $0.model.checkpoint = empty.path }, .auto
        ),
        (
          "resume", ["--resume", "/nowhere"], TinyRun.configuration(),
          .checkpoint(URL(filePath: "/nowhere"))
        ),
      ]
      for (name, words, configuration, resume) in cases {
        let error = try TinyRun.failure(
          configuration, in: folder.appending(path: name), ranks: 3, resume: resume)
        #expect(error.exitCode == .configuration, "\(name): \(error)")
        for word in words { #expect(error.message.contains(word), "\(name): \(error)") }
      }
    }
  }

  @Test func `a damaged prepared set is made anew`() throws {
    let configuration = TinyRun.configuration()
    try withTemporaryFolder { folder in
      let reference = try MainJobTests.Reference(configuration, in: folder)
      let place = folder.appending(path: "run")
      _ = try TinyRun.prepared(in: place)
      try TinyRun.flipBit(in: place.appending(path: "prepared/source-0.safetensors"))
      let end = try TinyRun.start(configuration, in: place, ranks: 2)
      #expect(end.words.contains("preparing again"))
      try reference.expectEqual(place, "after a damaged prepared set")
    }
  }

  @Test func `a run starts from a folder whose sizes are its own, without teaching`() throws {
    try withTemporaryFolder { folder in
      let source = folder.appending(path: "source")
      let other = TinyRun.configuration {
        $0.model.heads = 2
        $0.model.textWidth = 24
        $0.model.textTokens = 3
        $0.distill.method = .euler
      }
      _ = try TinyRun.start(other, in: source, ranks: 1)
      let start = TinyRun.configuration {
        $0.model.checkpoint = source.appending(path: "final/real").path
        $0.teach.steps = 0
      }
      var adopted = start
      try adopted.adoptModelFolder()
      #expect(adopted.model.heads == 2)
      #expect(adopted.model.textWidth == 24)
      #expect(adopted.model.textTokens == 3)

      let place = folder.appending(path: "run")
      _ = try TinyRun.start(adopted, in: place, ranks: 2)
      let (before, after) = (try TinyRun.weights(in: source), try TinyRun.weights(in: place))
      for (name, bytes) in before { #expect(after[name] == bytes, "\(name)") }
      #expect(before["real/conditioning.safetensors"] != nil)
      let again = try TinyRun.start(adopted, in: place, ranks: 1)
      #expect(again.words.contains("resuming distill after step 5"))

      var tooLarge = start
      tooLarge.distill.loraRank = 33
      #expect(throws: ConfigurationError.self) { try tooLarge.adoptModelFolder() }
    }
  }

  @Test func `more ranks than microbatches is a problem of the configuration`() throws {
    try withTemporaryFolder { folder in
      let error = try TinyRun.failure(TinyRun.configuration(), in: folder, ranks: 5)
      #expect(error.exitCode == .configuration)
      #expect(error.message.contains("batch.microbatches: is 4, but 5 data-parallel ranks"))
    }
  }
}
