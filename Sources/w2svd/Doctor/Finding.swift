// One thing that the doctor looked at.

import Foundation

struct Finding: Encodable {
  enum Verdict: String, Encodable {
    case good, doubtful, missing
  }

  let name: String
  let text: String
  let value: Double?
  let verdict: Verdict
  let note: String?

  init(
    _ name: String, _ text: String, value: Double? = nil, _ verdict: Verdict = .good,
    note: String? = nil
  ) {
    self.name = name
    self.text = text
    self.value = value
    self.verdict = verdict
    self.note = note
  }

  /// A program on PATH, with the first line that it says of itself.
  init(program: String, _ arguments: [String], purpose: String) {
    let line = Self.firstLine(program, arguments)
    self.init(
      program, line ?? "not found", line == nil ? .missing : .good,
      note: line == nil ? "needed \(purpose)" : nil)
  }

  var line: String {
    let mark =
      switch verdict {
      case .good: "ok       "
      case .doubtful: "doubtful "
      case .missing: "MISSING  "
      }
    return mark + name.padding(toLength: 20, withPad: " ", startingAt: 0) + text
      + (note.map { " (\($0))" } ?? "")
  }

  private static func firstLine(_ program: String, _ arguments: [String]) -> String? {
    let process = Process()
    let pipe = Pipe()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = [program] + arguments
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = pipe
    process.standardError = FileHandle.nullDevice
    do { try process.run() } catch { return nil }
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { return nil }
    return String(decoding: output, as: UTF8.self).split(separator: "\n").first.map(String.init)
  }
}
