// ffmpeg and ffprobe as child processes: arguments as an array, no shell, a deadline.
//
// What a child reads and writes goes through files in a scratch folder, so no pipe can fill up and
// block it, and its last words are there whatever happens to it.

import Dispatch
import Foundation

enum MediaTool {
  struct Output {
    let status: Int32
    let standardOutput: [UInt8]
    let standardError: String

    /// The first line that the tool said, for a message.
    var firstComplaint: String {
      let line = standardError.split(separator: "\n").first { !$0.allSatisfy(\.isWhitespace) }
      return line.map(String.init) ?? "exit status \(status)"
    }
  }

  /// Runs `name` with `arguments`; `input` is its standard input (nil: nothing).
  /// - Throws: `toolMissing`, `toolFailed` (not started, past the deadline), `unwritable`.
  static func run(
    _ name: String, _ arguments: [String], input: [UInt8]? = nil, deadline: Duration
  ) throws -> Output {
    guard let program = locate(name) else {
      throw VideoError(
        .toolMissing,
        "\(name) is not installed; run launch/bootstrap (or: apt-get install ffmpeg)")
    }
    let scratch = try ScratchFolder()
    let outputFile = scratch.file("stdout")
    let errorFile = scratch.file("stderr")
    let process = Process()
    process.executableURL = program
    process.arguments = arguments
    do {
      try Data().write(to: outputFile)
      try Data().write(to: errorFile)
      process.standardOutput = try FileHandle(forWritingTo: outputFile)
      process.standardError = try FileHandle(forWritingTo: errorFile)
      if let input {
        let inputFile = scratch.file("stdin")
        try Data(input).write(to: inputFile)
        process.standardInput = try FileHandle(forReadingFrom: inputFile)
      } else {
        process.standardInput = FileHandle.nullDevice
      }
    } catch {
      throw VideoError(
        .unwritable, "cannot write to the temporary folder \(scratch.url.path); is the disk full?",
        cause: error)
    }
    try finish(process, name: name, deadline: deadline)
    do {
      return Output(
        status: process.terminationReason == .exit ? process.terminationStatus : -1,
        standardOutput: [UInt8](try Data(contentsOf: outputFile)),
        standardError: String(decoding: try Data(contentsOf: errorFile), as: UTF8.self))
    } catch {
      throw VideoError(.toolFailed, "cannot read what \(name) wrote", cause: error)
    }
  }

  /// Starts the process and waits for its end; a process past its deadline is killed.
  private static func finish(_ process: Process, name: String, deadline: Duration) throws {
    let ended = DispatchSemaphore(value: 0)
    process.terminationHandler = { _ in ended.signal() }
    do {
      try process.run()
    } catch {
      throw VideoError(.toolFailed, "\(name) could not be started", cause: error)
    }
    let milliseconds = Int(deadline / .milliseconds(1))
    if ended.wait(timeout: .now() + .milliseconds(milliseconds)) == .timedOut {
      kill(process.processIdentifier, SIGKILL)
      ended.wait()
      throw VideoError(
        .toolFailed,
        "\(name) did not finish within \(deadline) and was stopped; try a shorter or smaller video")
    }
  }

  /// The program on PATH.
  private static func locate(_ name: String) -> URL? {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin"
    return path.split(separator: ":").lazy
      .map { URL(filePath: String($0), directoryHint: .isDirectory).appending(path: name) }
      .first { FileManager.default.isExecutableFile(atPath: $0.path) }
  }
}
