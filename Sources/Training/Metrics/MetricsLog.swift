// `metrics.jsonl` of a run folder: one JSON object a line, appended step by step.
//
// A killed run leaves lines of steps that its checkpoint does not know, and perhaps half a line. On
// resume they are cut away first, in one rename, so that the file ends up as that of a run that was
// never disturbed (measured times aside).

package import Foundation

package final class MetricsLog {
  /// Where a run goes on: what comes after `step` of `phase`, and later phases, will be done again.
  package struct Position: Hashable, Sendable {
    package var phase: String
    /// Steps of the phase that stay; 0 drops them all.
    package var step: Int
    /// Phases that come after `phase` in the run.
    package var laterPhases: [String]

    package init(phase: String, step: Int, laterPhases: [String] = []) {
      self.phase = phase
      self.step = step
      self.laterPhases = laterPhases
    }
  }

  private let url: URL
  private let file: FileHandle

  /// Opens the file for appending, after trimming it to `position`; nil keeps every whole line.
  ///
  /// - Collective: no; one rank of a run writes.
  /// - Throws: `MetricsError`.
  package init(url: URL, resumingAt position: Position? = nil) throws {
    self.url = url
    try Self.trim(url, to: position)
    do {
      if !FileManager.default.fileExists(atPath: url.path) { try Data().write(to: url) }
      file = try FileHandle(forWritingTo: url)
      try file.seekToEnd()
    } catch {
      throw MetricsError(
        code: .cannotOpen, message: "cannot open \(url.path) for writing; \(MetricsError.advice)",
        cause: error)
    }
  }

  deinit { try? file.close() }

  /// Appends one line in one write, so that other programs can follow the file.
  package func append(_ record: MetricsRecord) throws {
    do {
      try file.write(contentsOf: Data((record.jsonLine + "\n").utf8))
    } catch {
      throw MetricsError(
        code: .cannotWrite, message: "cannot write to \(url.path); \(MetricsError.advice)",
        cause: error)
    }
  }

  /// Drops torn lines, and what `position` says will be done again; a file that needs no change is
  /// not touched, others are replaced in one rename.
  static func trim(_ url: URL, to position: Position?) throws {
    guard FileManager.default.fileExists(atPath: url.path) else { return }
    let before: Data
    do {
      before = try Data(contentsOf: url)
    } catch {
      throw MetricsError(code: .cannotRead, message: "cannot read \(url.path)", cause: error)
    }
    let after = trimmed([UInt8](before), to: position)
    guard after != [UInt8](before) else { return }
    do {
      try Data(after).write(to: url, options: .atomic)
    } catch {
      throw MetricsError(
        code: .cannotWrite, message: "cannot rewrite \(url.path); \(MetricsError.advice)",
        cause: error)
    }
  }

  static func trimmed(_ bytes: [UInt8], to position: Position?) -> [UInt8] {
    let newline = UInt8(ascii: "\n")
    guard let end = bytes.lastIndex(of: newline) else { return [] }
    var result: [UInt8] = []
    result.reserveCapacity(end + 1)
    for line in bytes[..<end].split(separator: newline) where keeps(line, position) {
      result += line
      result.append(newline)
    }
    return result
  }

  private static func keeps(_ line: ArraySlice<UInt8>, _ position: Position?) -> Bool {
    guard
      let object = try? JSONSerialization.jsonObject(with: Data(line)) as? [String: Any],
      let phase = object["phase"] as? String, let step = (object["step"] as? NSNumber)?.intValue
    else { return false }
    guard let position else { return true }
    return phase == position.phase ? step <= position.step : !position.laterPhases.contains(phase)
  }
}
