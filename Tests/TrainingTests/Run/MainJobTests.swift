import Checkpoints
import DenseKernels
import Diffusion
import Evaluation
import Exchange
import Foundation
import ProcessMesh
import TestSupport
import Testing
import VideoData

@testable import Training

/// The methods and terms of the distill phase.
enum Recipe: String, CaseIterable, Sendable {
  case w2s, allTerms, dmd2, lcm, euler

  var configuration: RunConfiguration {
    TinyRun.configuration { tiny in
      switch self {
      case .w2s: tiny.distill.guidance = 2
      case .allTerms:
        tiny.distill.rollout = .data
        tiny.distill.lambdaGroundTruth = 0.25
        tiny.distill.lambdaAdversarial = 5e-3
        tiny.model.recompute = true
        tiny.exchange.codec = .planes
      case .dmd2: tiny.distill.method = .dmd2
      case .lcm: tiny.distill.method = .lcm
      case .euler: tiny.distill.method = .euler
      }
    }
  }
}

@Suite struct MainJobTests {
  /// The weights and losses of a run on one rank that nobody disturbed.
  struct Reference {
    let weights: [String: Data]
    let losses: [String]

    init(_ configuration: RunConfiguration, in folder: URL) throws {
      let place = folder.appending(path: "reference")
      _ = try TinyRun.start(configuration, in: place, ranks: 1)
      weights = try TinyRun.weights(in: place)
      losses = try TinyRun.losses(in: place)
      #expect(!weights.isEmpty)
    }

    /// As `expectEqual`, for a run that did not do all steps itself.
    func expectFinal(_ folder: URL) throws {
      let found = try TinyRun.weights(in: folder)
      #expect(found.keys.sorted() == weights.keys.sorted())
      for (name, bytes) in weights { #expect(found[name] == bytes, "\(name)") }
    }

    func expectEqual(_ folder: URL, _ comment: Comment) throws {
      let found = try TinyRun.weights(in: folder)
      #expect(found.keys.sorted() == weights.keys.sorted(), comment)
      for (name, bytes) in weights { #expect(found[name] == bytes, "\(name): \(comment)") }
      #expect(try TinyRun.losses(in: folder) == losses, comment)
    }
  }

  @Test(arguments: Recipe.allCases)
  func `1, 2 and 4 ranks, stopped and resumed on others, end with the same bits`(
    _ recipe: Recipe
  ) throws {
    try withTemporaryFolder { folder in
      let configuration = recipe.configuration
      let reference = try Reference(configuration, in: folder)
      for ranks in [2, 4] {
        let place = folder.appending(path: "on-\(ranks)")
        _ = try TinyRun.start(configuration, in: place, ranks: ranks)
        try reference.expectEqual(place, "\(recipe) on \(ranks) ranks")
      }
      let place = folder.appending(path: "stopped")
      for (stop, ranks) in [(3, 4), (6, 2), (nil, 1)] {
        let end = try TinyRun.start(configuration, in: place, ranks: ranks, stopAt: stop)
        #expect(try end.outcome.get() == .resumeMe)
      }
      try reference.expectEqual(place, "\(recipe), stopped twice")
    }
  }

  @Test func `a run that is asked to stop at any step goes on with the same bits`() throws {
    let configuration = TinyRun.configuration()
    // Prepare, 3 steps of teaching, 5 of distilling, and the first samples.
    let pollCount = 1 + 3 + 5 + 1
    try withTemporaryFolder { folder in
      let reference = try Reference(configuration, in: folder)
      for stop in 1...pollCount {
        let place = folder.appending(path: "stop-\(stop)")
        let ranks = [1, 2, 4][stop % 3]
        let end = try TinyRun.start(configuration, in: place, ranks: ranks, stopAt: stop)
        #expect(try end.outcome.get() == .resumeMe)
        _ = try TinyRun.start(configuration, in: place, ranks: [2, 4, 1][stop % 3])
        try reference.expectEqual(place, "stopped at poll \(stop) on \(ranks) ranks")
      }
    }
  }

  @Test func `three ranks share four microbatches unevenly and finish`() throws {
    try withTemporaryFolder { folder in
      _ = try TinyRun.start(TinyRun.configuration(), in: folder, ranks: 3)
      #expect(try TinyRun.losses(in: folder).count == 8)
      #expect(try !TinyRun.weights(in: folder).isEmpty)
    }
  }

  @Test func `a finished run is known again, and lost results are made again`() throws {
    let configuration = TinyRun.configuration()
    try withTemporaryFolder { folder in
      let first = try TinyRun.start(configuration, in: folder, ranks: 2, stopAt: 0)
      #expect(try first.outcome.get() == .done)
      #expect(first.words.contains("report: \(folder.path)"))
      let weights = try TinyRun.weights(in: folder)
      let losses = try TinyRun.losses(in: folder)
      let sheet = folder.appending(path: "samples/unconditional-student-2.png")
      let memory = try Data(contentsOf: folder.appending(path: "memory.json"))
      func date(_ file: URL) throws -> Date? {
        try FileManager.default.attributesOfItem(atPath: file.path)[.modificationDate] as? Date
      }
      let sheetDate = try #require(try date(sheet))

      try FileManager.default.removeItem(at: folder.appending(path: "final"))
      let second = try TinyRun.start(configuration, in: folder, ranks: 1, stopAt: 0)
      #expect(try second.outcome.get() == .done)
      #expect(second.words.contains("report: \(folder.path)"))
      #expect(try TinyRun.weights(in: folder) == weights)
      #expect(try TinyRun.losses(in: folder) == losses)
      #expect(try date(sheet) == sheetDate)
      #expect(try Data(contentsOf: folder.appending(path: "memory.json")) == memory)

      // The newest checkpoint breaks: training goes on from an older one, and what was made of the
      // newest is not shown as if it were of this one.
      let newest = try TinyRun.newestCheckpoint(in: folder)
      try TinyRun.flipBit(in: newest.appending(path: "rank-00000.safetensors"))
      let third = try TinyRun.start(configuration, in: folder, ranks: 2)
      #expect(third.words.contains("skipped checkpoint \(newest.lastPathComponent)"))
      #expect(try TinyRun.weights(in: folder) == weights)
      #expect(try TinyRun.losses(in: folder) == losses)
      #expect(!FileManager.default.fileExists(atPath: sheet.path))
      let aside = folder.appending(path: "earlier-1")
      for name in ["generator", "fake", "samples", "evaluation", "memory.json", "report.html"] {
        #expect(
          FileManager.default.fileExists(atPath: aside.appending(path: name).path), "\(name)")
      }
    }
  }

  @Test(arguments: ["flipped", "cut", "no manifest"])
  func `a torn newest checkpoint gives way to an older one, with the same bits`(
    _ damage: String
  ) throws {
    let configuration = TinyRun.configuration()
    try withTemporaryFolder { folder in
      let reference = try Reference(configuration, in: folder)
      let place = folder.appending(path: "run")
      _ = try TinyRun.start(configuration, in: place, ranks: 2, stopAt: 9)
      let newest = try TinyRun.newestCheckpoint(in: place)
      let file = newest.appending(path: "rank-00001.safetensors")
      switch damage {
      case "flipped": try TinyRun.flipBit(in: file)
      case "cut": try Data(contentsOf: file).dropLast(8).write(to: file)
      default: try FileManager.default.removeItem(at: newest.appending(path: "manifest.json"))
      }
      let end = try TinyRun.start(configuration, in: place, ranks: 2)
      #expect(end.words.contains("skipped checkpoint \(newest.lastPathComponent)"))
      #expect(end.words.contains("resuming"))
      try reference.expectEqual(place, "\(damage)")
    }
  }

  @Test func `a save that fails ends all ranks, and what was saved before stays`() throws {
    let configuration = TinyRun.configuration()
    try withTemporaryFolder { folder in
      let reference = try Reference(configuration, in: folder)
      let place = folder.appending(path: "run")
      _ = try TinyRun.start(configuration, in: place, ranks: 2, stopAt: 3)
      let kept = try TinyRun.newestCheckpoint(in: place)
      // Where the next checkpoint is to be written lies a file that cannot be cleared away: the
      // folder that holds the checkpoints is a file for the while.
      let checkpoints = place.appending(path: "checkpoints")
      let away = place.appending(path: "away")
      try FileManager.default.moveItem(at: checkpoints, to: away)
      try Data().write(to: checkpoints)
      let error = try TinyRun.failure(
        configuration, in: place, ranks: 4,
        resume: .checkpoint(away.appending(path: kept.lastPathComponent)))
      #expect(error.exitCode == .other)
      #expect(error.message.contains("checkpoints"))
      try FileManager.default.removeItem(at: checkpoints)
      try FileManager.default.moveItem(at: away, to: checkpoints)
      _ = try TinyRun.start(configuration, in: place, ranks: 4)
      try reference.expectEqual(place, "after a save that failed")
    }
  }

  @Test func `what is made of other settings is made again, though nothing is trained again`()
    throws
  {
    try withTemporaryFolder { folder in
      let first = TinyRun.configuration {
        $0.distill.method = .euler
        $0.teach.steps = 1
      }
      func start(_ change: (inout RunConfiguration) -> Void) throws -> TinyEnd {
        var configuration = first
        change(&configuration)
        return try TinyRun.start(configuration, in: folder, ranks: 1, stopAt: 0)
      }
      let row = folder.appending(path: "evaluation/teacher-2-of-2.json")
      let clips = folder.appending(path: "samples/unconditional-teacher-2.mp4")
      _ = try start { _ in }
      let (oldRow, oldClips) = (try Data(contentsOf: row), try Data(contentsOf: clips))
      #expect(try !start { _ in }.words.contains("were moved to"))
      #expect(try start { $0.sample.clips = 2 }.words.contains("earlier-1"))
      #expect(try Data(contentsOf: clips) != oldClips)
      let shifted = try start {
        $0.sample.clips = 2
        $0.distill.flowShift = 7
      }
      #expect(shifted.words.contains("earlier-2"))
      #expect(shifted.words.contains("resuming teach after step 1"))
      #expect(try TinyRun.losses(in: folder).count == 1)
      #expect(try Data(contentsOf: row) != oldRow)
      #expect(
        try Data(contentsOf: folder.appending(path: "earlier-1/evaluation/teacher-2-of-2.json"))
          == oldRow)
    }
  }

  @Test func `starting from a named checkpoint goes on from its own saves when asked again`() throws
  {
    let configuration = TinyRun.configuration()
    try withTemporaryFolder { folder in
      let reference = try Reference(configuration, in: folder)
      let source = folder.appending(path: "source")
      _ = try TinyRun.start(configuration, in: source, ranks: 1, stopAt: 3)
      let named = try TinyRun.newestCheckpoint(in: source)
      let place = folder.appending(path: "run")
      for stop in [3, 3] {
        let end = try TinyRun.start(
          configuration, in: place, ranks: 2, stopAt: stop, resume: .checkpoint(named))
        #expect(try end.outcome.get() == .resumeMe)
      }
      // Also without the flag, and with it once the named folder is gone.
      let plain = try TinyRun.start(configuration, in: place, ranks: 2, stopAt: 3)
      #expect(try plain.outcome.get() == .resumeMe)
      try FileManager.default.removeItem(at: source)
      let last = try TinyRun.start(
        configuration, in: place, ranks: 1, resume: .checkpoint(named))
      #expect(try last.outcome.get() == .resumeMe)
      #expect(last.words.contains(place.path + "/checkpoints/step-"))
      try reference.expectFinal(place)
      // Another one than it began with is still refused.
      let other = folder.appending(path: "other")
      _ = try TinyRun.start(configuration, in: other, ranks: 1, stopAt: 2)
      let error = try TinyRun.failure(
        configuration, in: place, resume: .checkpoint(try TinyRun.newestCheckpoint(in: other)))
      #expect(error.exitCode == .configuration)
      #expect(error.message.contains("has checkpoints of other steps"))
    }
  }

  @Test func `a run whose gradients are not finite any more says so, and ends with what it had`()
    throws
  {
    try withTemporaryFolder { folder in
      let configuration = TinyRun.configuration {
        $0.teach.steps = 80
        $0.teach.learningRate = 1e38
        $0.checkpoint.everySteps = 1
        $0.checkpoint.keep = 1
      }
      let end = try TinyRun.start(configuration, in: folder, ranks: 2)
      guard case .failure(let error) = end.outcome else {
        Issue.record("the job ended with \(end.outcome)")
        return
      }
      #expect(error.exitCode == .other)
      #expect(error.message.contains("teach: the gradients of the last 50 updates of the real DiT"))
      let told = end.words.split(separator: "\n").filter { $0.contains("is not finite, so") }
      #expect(told.count == 1)
      // The checkpoint is that of the step before the first one that was left out.
      let first = try #require(
        told.first?.firstMatch(of: /teach step (\d+):/).flatMap { Int($0.output.1) })
      let newest = try TinyRun.newestCheckpoint(in: folder)
      #expect(Int(newest.lastPathComponent.dropFirst(5)) == first - 1)
    }
  }

  @Test func `metrics tell the bytes of all ranks, and the report those of averages too`() throws {
    let configuration = TinyRun.configuration()
    try withTemporaryFolder { folder in
      var gradients: [Int: Int] = [:]
      for ranks in [1, 2, 4] {
        let place = folder.appending(path: "on-\(ranks)")
        _ = try TinyRun.start(configuration, in: place, ranks: ranks)
        let text = try String(
          contentsOf: place.appending(path: "metrics.jsonl"), encoding: .utf8)
        let line = try #require(text.split(separator: "\n").first)
        let fields = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
        gradients[ranks] = try #require(fields?["gradients_raw_bytes"] as? Int)
        let record = TrafficRecord(reading: RunFolder(place.path + "/"))
        #expect(record.averages.keys.sorted() == (ranks == 1 ? [] : ["distill", "teach"]))
        let traffic = try ReportPhase.content(
          of: configuration, in: RunFolder(place.path + "/"), title: "", environment: []
        ).traffic
        let averages: [String] = ranks == 1 ? [] : ["moving averages"]
        let kinds: [String] = ["gradients"] + averages + ["parameters"]
        let wanted = kinds.map { "distill: " + $0 } + kinds.map { "teach: " + $0 }
        #expect(traffic.map(\.kind) == wanted)
        // An average has as many elements as the parameters that a step of teaching sends.
        let bytes = Dictionary(uniqueKeysWithValues: traffic.map { ($0.kind, $0.rawByteCount) })
        if ranks > 1 {
          let once = bytes["teach: moving averages"] ?? 0
          #expect(bytes["teach: parameters"] == configuration.teach.steps * once)
        }
      }
      // Each of N ranks sends all that it does not own: together N − 1 times the gradient.
      let whole = try #require(gradients[2])
      #expect(whole > 0 && gradients == [1: 0, 2: whole, 4: 3 * whole])
    }
  }

  @Test func `a checkpoint notes the precision that auto meant, the codec and the libraries`()
    throws
  {
    try withTemporaryFolder { folder in
      _ = try TinyRun.start(TinyRun.configuration(), in: folder, ranks: 2, stopAt: 3)
      let fields = try CheckpointReader(opening: TinyRun.newestCheckpoint(in: folder))
        .manifest.fields
      let precision = try ConfigurationReader.read(stored: fields.configuration).compute.precision
      #expect(precision == (ProductPrecision.bfloat16.isFast ? .bf16 : .fp32))
      let config = try String(contentsOf: folder.appending(path: "config.yaml"), encoding: .utf8)
      #expect(config == fields.configuration)
      let prepared = try PreparedSet(loading: folder.appending(path: "prepared"))
      #expect(fields.dataFingerprint == prepared.dataFingerprint.text)
      #expect(prepared.dataFingerprint.text.hasPrefix(prepared.fingerprint + "-"))
      #expect(fields.mesh == "zero 2")
      #expect(
        ["w2svd", "OpenBLAS", "OpenBLAS kernels", "zstd"]
          .allSatisfy { fields.libraryVersions[$0]?.isEmpty == false })
    }
  }
}
