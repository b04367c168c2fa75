// The results in a run folder and how they stay true: each appears whole or not at all, and none
// outlives the weights that it was made of.

import Foundation
import VideoData

extension RunFolder {
  /// Made of W, when the teach phase ends.
  var resultsOfTeaching: [URL] { [final(.real)] }

  /// Made of the student, when the distill phase ends.
  var resultsOfDistillation: [URL] { [final(.fake), final(.generator), memory] + shownResults }

  /// What shows the student's clips and numbers.
  var shownResults: [URL] { [samples, evaluation, report] }

  /// Removes the temporary folders that killed runs left. Only the holder of the run's lock may.
  func removeLeftovers() {
    for folder in [url, samples] {
      let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
      for name in names where ScratchFolder.isNamedSo(name) {
        try? FileManager.default.removeItem(at: folder.appending(path: name))
      }
    }
  }

  /// - Returns: where the folder of a role's weights is to be written, until `finishExport`.
  func beginExport(_ role: FinalRole) throws -> URL {
    let (partial, files) = (partialExport(role), FileManager.default)
    try explaining(final(role)) {
      try files.createDirectory(
        at: partial.deletingLastPathComponent(), withIntermediateDirectories: true)
      if files.fileExists(atPath: partial.path) { try files.removeItem(at: partial) }
    }
    return partial
  }

  /// Gives the folder its name.
  func finishExport(_ role: FinalRole) throws {
    try explaining(final(role)) {
      try FileManager.default.moveItem(at: partialExport(role), to: final(role))
    }
  }

  private func partialExport(_ role: FinalRole) -> URL {
    final(role).appendingPathExtension("partial")
  }

  /// Moves results that are there into a folder `earlier-N`; nothing is deleted.
  /// - Returns: that folder, or nil when none of them was there.
  func setAside(_ results: [URL]) throws -> URL? {
    let files = FileManager.default
    let stale = results.filter { files.fileExists(atPath: $0.path) }
    if stale.isEmpty { return nil }
    let aside = Self.firstFree { url.appending(path: "earlier-\($0)") }
    try explaining(aside) {
      try files.createDirectory(at: aside, withIntermediateDirectories: true)
      for result in stale {
        try files.moveItem(at: result, to: aside.appending(path: result.lastPathComponent))
      }
    }
    return aside
  }

  /// Moves the whole folder away, if a run was in it.
  /// - Returns: where it is now, or nil when there was no run.
  func setRunAside() throws -> URL? {
    guard FileManager.default.fileExists(atPath: configuration.path) else { return nil }
    let path = url.path.hasSuffix("/") ? String(url.path.dropLast()) : url.path
    let aside = Self.firstFree { URL(filePath: "\(path).previous-\($0)") }
    try explaining(aside) { try FileManager.default.moveItem(at: url, to: aside) }
    return aside
  }

  /// The first of the numbered places, from 1 on, that nothing lies at.
  private static func firstFree(_ place: (Int) -> URL) -> URL {
    var number = 1
    while FileManager.default.fileExists(atPath: place(number).path) { number += 1 }
    return place(number)
  }

  private func explaining<Value>(_ place: URL, _ body: () throws -> Value) throws -> Value {
    do { return try body() } catch { throw Self.cannotWrite(place, error) }
  }
}
