// Whole main jobs in their smallest form, on ranks that are threads: a second is a long time for one.

import Foundation
import ProcessMesh
import Synchronization
import Testing
import VideoData

@testable import Training

/// How one start of a job ended.
struct TinyEnd: Sendable {
  let outcome: Result<ExitCode, JobError>
  /// What rank 0 said.
  let words: String
}

enum TinyRun {
  static func configuration(
    _ change: (inout RunConfiguration) -> Void = { _ in }
  ) -> RunConfiguration {
    var tiny = RunConfiguration()
    tiny.seed = 3
    tiny.data.folder = "/nowhere"
    (tiny.data.frameCount, tiny.data.size, tiny.data.shortSide) = (5, 16, 20)
    tiny.data.proceduralPeople = 1
    (tiny.model.heads, tiny.model.headWidth) = (1, 16)
    (tiny.model.doubleBlocks, tiny.model.singleBlocks, tiny.model.refinerBlocks) = (1, 1, 1)
    (tiny.model.textTokens, tiny.model.textWidth, tiny.model.pooledWidth) = (2, 8, 8)
    (tiny.batch.microbatches, tiny.batch.samples) = (4, 1)
    (tiny.teach.steps, tiny.teach.warmupSteps) = (3, 1)
    (tiny.distill.steps, tiny.distill.criticRatio, tiny.distill.generatorSteps) = (5, 2, 2)
    (tiny.distill.loraRank, tiny.distill.discriminatorWidth) = (2, 8)
    (tiny.sample.clips, tiny.sample.teacherSteps) = (1, 2)
    (tiny.evaluate.samples, tiny.evaluate.batch) = (2, 1)
    (tiny.checkpoint.everySteps, tiny.checkpoint.keep) = (2, 2)
    change(&tiny)
    return tiny
  }

  /// Folders of prepared sets, each made once.
  private static let preparedFolders = Mutex<[PreparationOptions: URL]>([:])

  /// Where the set of a configuration without videos lies, for reading.
  private static func preparedFolder(of configuration: RunConfiguration) throws -> URL {
    let options = configuration.preparationOptions
    return try preparedFolders.withLock { folders in
      if let folder = folders[options] { return folder }
      let folder = FileManager.default.temporaryDirectory
        .appending(path: "w2svd-tests-prepared-\(UUID().uuidString)")
      _ = try PreparedSet.prepare(from: .procedural, options: options, in: folder)
      folders[options] = folder
      return folder
    }
  }

  /// The set of a configuration, whose clips may have another size.
  static func prepared(of configuration: RunConfiguration) throws -> PreparedSet {
    try PreparedSet(loading: preparedFolder(of: configuration))
  }

  /// The set of `configuration()`, in a folder where a job looks for it.
  static func prepared(in folder: URL) throws -> PreparedSet {
    try copyPrepared(into: folder)
    return try PreparedSet(loading: folder.appending(path: "prepared"))
  }

  private static func copyPrepared(into folder: URL) throws {
    let place = folder.appending(path: "prepared")
    if !FileManager.default.fileExists(atPath: place.path) {
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      try FileManager.default.copyItem(at: preparedFolder(of: configuration()), to: place)
    }
  }

  /// Starts the job in `folder` and waits for its end, which must be the same on all ranks.
  ///
  /// - Parameter stopAt: all ranks ask to stop from this poll on, counted from 1; nil asks once the
  ///   student is exported, which leaves out the slow writing of videos; 0 never asks.
  static func start(
    _ configuration: RunConfiguration, in folder: URL, ranks: Int, stopAt: Int? = nil,
    resume: ResumeMode = .auto
  ) throws -> TinyEnd {
    if configuration.data.paths.isEmpty && resume != .never { try copyPrepared(into: folder) }
    let ends = try InProcessMesh.run(size: ranks) { transport -> TinyEnd in
      let words = Mutex("")
      let polls = Mutex(0)
      let runFolder = RunFolder(folder.path + "/")
      let exported = runFolder.final(configuration.distill.method == .euler ? .real : .generator)
      let reporter =
        transport.isRoot
        ? Reporter(
          style: .plain(interval: 1e9), output: { text in words.withLock { $0 += text } })
        : Reporter()
      do {
        let job = try MainJob(
          configuration: configuration, folder: runFolder, resume: resume, transport: transport,
          reporter: reporter, plan: try Coordinator.plan(configuration, rankCount: transport.size),
          environment: [],
          isStopRequested: {
            if let stopAt {
              return polls.withLock { count in
                count += 1
                return stopAt > 0 && count >= stopAt
              }
            }
            return FileManager.default.fileExists(atPath: exported.path)
          })
        return TinyEnd(outcome: .success(try job.run()), words: words.withLock { $0 })
      } catch let error as PeerError {
        throw error
      } catch {
        return TinyEnd(outcome: .failure(JobError(error)), words: words.withLock { $0 })
      }
    }
    for end in ends {
      switch (end.outcome, ends[0].outcome) {
      case (.success(let code), .success(let first)): #expect(code == first)
      case (.failure(let error), .failure(let first)):
        #expect(error.exitCode == first.exitCode && error.message == first.message)
      default: Issue.record("ranks ended differently: \(end.outcome), \(ends[0].outcome)")
      }
    }
    return ends[0]
  }

  /// As `start`, for a job that must fail.
  static func failure(
    _ configuration: RunConfiguration, in folder: URL, ranks: Int = 2, resume: ResumeMode = .auto
  ) throws -> JobError {
    switch try start(configuration, in: folder, ranks: ranks, resume: resume).outcome {
    case .success(let code):
      Issue.record("the job ended with \(code)")
      return JobError(exitCode: .done, "")
    case .failure(let error): return error
    }
  }

  /// Every file of final weights, by path.
  static func weights(in folder: URL) throws -> [String: Data] {
    let final = folder.appending(path: "final")
    let names = try FileManager.default.subpathsOfDirectory(atPath: final.path)
    return Dictionary(
      uniqueKeysWithValues: try names.filter { $0.hasSuffix(".safetensors") }.map {
        ($0, try Data(contentsOf: final.appending(path: $0)))
      })
  }

  /// Phase, step and the digits of each loss and each reading of the matching, line by line.
  static func losses(in folder: URL) throws -> [String] {
    losses(of: try metrics(in: RunFolder(folder.path + "/")))
  }

  static func losses(of metrics: [[String: Any]]) -> [String] {
    metrics.map { fields in
      fields.keys.filter {
        ["phase", "step"].contains($0) || $0.hasSuffix("loss") || $0.hasPrefix("matching_")
      }.sorted().map { "\($0) \(fields[$0] ?? "")" }.joined(separator: ", ")
    }
  }

  /// The fields of each line.
  static func metrics(in folder: RunFolder) throws -> [[String: Any]] {
    try String(contentsOf: folder.metrics, encoding: .utf8).split(separator: "\n").map { line in
      let object = try JSONSerialization.jsonObject(with: Data(line.utf8))
      return try #require(object as? [String: Any])
    }
  }

  static func newestCheckpoint(in folder: URL) throws -> URL {
    let checkpoints = folder.appending(path: "checkpoints")
    let names = try FileManager.default.contentsOfDirectory(atPath: checkpoints.path)
    let newest = try #require(names.filter { $0.hasPrefix("step-") }.max())
    return checkpoints.appending(path: newest)
  }

  /// Flips one bit in the middle of a file.
  static func flipBit(in file: URL) throws {
    var bytes = try Data(contentsOf: file)
    bytes[bytes.startIndex + bytes.count * 3 / 4] ^= 4
    try bytes.write(to: file)
  }
}
