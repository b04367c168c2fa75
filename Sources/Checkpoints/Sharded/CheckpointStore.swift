// The checkpoints of a run: which one to load, which ones to delete.
//
// A folder `step-00001200` whose manifest, checksum and file sizes are right is a checkpoint; names that
// end in `.tmp` are saves that never were. The text file `latest` is a hint for people, not read here.

import Basics
import DenseKernels
package import Foundation

/// The folder `checkpoints/` of a run.
package struct CheckpointStore: Sendable {
  package let folder: URL

  package init(_ folder: URL) { self.folder = folder }

  /// A folder that is named like a checkpoint; whether it is one shows when it is opened.
  package struct Candidate: Equatable, Sendable {
    package let step: Int
    package let folder: URL
  }

  /// A candidate that was passed over, and why.
  package struct Skipped: Sendable, CustomStringConvertible {
    package let candidate: Candidate
    package let error: CheckpointError
    package var description: String { "\(candidate.folder.lastPathComponent): \(error.message)" }
  }

  package func writer(step: Int) -> CheckpointWriter { CheckpointWriter(store: self, step: step) }

  /// Newest first; empty when there is no such folder yet. A checkpoint that had stepped aside for
  /// another of the same step counts while that one is not there.
  package func candidates() -> [Candidate] {
    let names = Set(names())
    return names.compactMap { name in
      let suffix = name.hasSuffix(steppedAsideSuffix) ? steppedAsideSuffix.count : 0
      let plain = String(name.dropLast(suffix))
      guard plain.hasPrefix("step-"), let step = Int(plain.dropFirst(5)), step >= 0,
        plain == Self.name(ofStep: step), suffix == 0 || !names.contains(plain)
      else { return nil }
      return Candidate(step: step, folder: folder.appending(path: name))
    }.sorted { $0.step > $1.step }
  }

  /// The newest checkpoint that passes, and the newer ones that do not.
  /// - Parameter deep: whether every slice must match its checksum before it is taken.
  package func newestValid(deep: Bool = false) -> (
    reader: CheckpointReader?, skipped: [Skipped]
  ) {
    var skipped: [Skipped] = []
    for candidate in candidates() {
      do { return (try Self.open(candidate, deep: deep), skipped) } catch {
        skipped.append(Skipped(candidate: candidate, error: Self.checkpointError(error)))
      }
    }
    return (nil, skipped)
  }

  /// All that is wrong with one checkpoint; empty when it is whole.
  package static func verify(_ folder: URL, deep: Bool) -> [CheckpointProblem] {
    do { return try CheckpointReader(opening: folder).verify(deep: deep) } catch {
      return [
        CheckpointProblem(
          file: Manifest.fileName, tensor: nil, reason: checkpointError(error).message)
      ]
    }
  }

  /// Deletes all but the newest `keep` valid checkpoints. Invalid folders newer than all of these
  /// stay for whoever wants to look at them; nothing is deleted while nothing is valid.
  /// - Parameter newest: the step that was saved last. Later ones are of a course that the run left
  ///   because they were damaged: they neither count nor go.
  /// - Returns: the deleted folders.
  @discardableResult
  package func prune(keep: Int, newest: Int = .max) throws -> [URL] {
    require(keep >= 1, "keeping \(keep) checkpoints would delete the last one")
    var kept = 0
    var deleted: [URL] = []
    for candidate in candidates() where candidate.step <= newest {
      if kept < keep {
        if (try? Self.open(candidate, deep: false)) != nil {
          kept += 1
          continue
        }
        if kept == 0 { continue }
      }
      // Renamed first, so that a crash in the middle leaves no half-deleted checkpoint.
      let leaving = temporaryFolder(ofStep: candidate.step)
      try removeIfThere(leaving)
      try explainingFailures {
        try PositionedFile.move(candidate.folder.plainPath, to: leaving.plainPath)
      }
      try removeIfThere(leaving)
      deleted.append(candidate.folder)
    }
    return deleted
  }

  /// Removes what interrupted saves left. Only the run that holds the lock of its folder may.
  package func removeLeftovers() throws {
    for name in names() where name.hasPrefix("step-") && name.hasSuffix(".tmp") {
      try removeIfThere(folder.appending(path: name))
    }
    for candidate in candidates()
    where candidate.folder.lastPathComponent.hasSuffix(steppedAsideSuffix) {
      try explainingFailures {
        try PositionedFile.move(
          candidate.folder.plainPath, to: folder(ofStep: candidate.step).plainPath)
      }
    }
    for name in names() where name.hasPrefix("step-") && name.hasSuffix(steppedAsideSuffix) {
      try removeIfThere(folder.appending(path: name))
    }
  }

  // MARK: Names

  static func name(ofStep step: Int) -> String { "step-\(zeroPadded(step, 8))" }

  func folder(ofStep step: Int) -> URL { folder.appending(path: Self.name(ofStep: step)) }

  func temporaryFolder(ofStep step: Int) -> URL {
    folder.appending(path: Self.name(ofStep: step) + ".tmp")
  }

  /// Only a hint: a failure to write it does not unmake the checkpoint that was just committed.
  func writeLatestHint(_ step: Int) {
    let partial = folder.appending(path: "latest.partial")
    do {
      try writeWhole(Array("\(Self.name(ofStep: step))\n".utf8), to: partial)
      try PositionedFile.move(
        partial.plainPath, to: folder.appending(path: "latest").plainPath)
    } catch {
      try? FileManager.default.removeItem(at: partial)
    }
  }

  private func names() -> [String] {
    (try? FileManager.default.contentsOfDirectory(atPath: folder.plainPath)) ?? []
  }

  private static func open(_ candidate: Candidate, deep: Bool) throws -> CheckpointReader {
    let reader = try CheckpointReader(opening: candidate.folder)
    if let problem = deep ? reader.verify(deep: true).first : nil {
      throw CheckpointError(.damaged, problem.reason)
    }
    return reader
  }

  private static func checkpointError(_ error: any Error) -> CheckpointError {
    error as? CheckpointError
      ?? CheckpointError(.inputOutput, "\(error)", cause: error)
  }
}
