// ffmpeg and ffprobe as child processes: arguments as an array, no shell, a deadline, a stop request.
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

    /// Whether the tool does not know one of its arguments, which no file is to blame for.
    var isUsageError: Bool {
      status != 0
        && ["Unrecognized option", "Option not found"].contains { standardError.contains($0) }
    }

    /// The first line that the tool said, for a message.
    var firstComplaint: String {
      let line = standardError.split(separator: "\n").first { !$0.allSatisfy(\.isWhitespace) }
      return line.map(String.init) ?? "exit status \(status)"
    }
  }

  /// How often a running tool is asked about: the delay of a stop request.
  private static let pollInterval = DispatchTimeInterval.milliseconds(50)

  /// Runs `name` with `arguments`; `input` is its standard input (nil: nothing).
  ///
  /// - Parameter isStopRequested: asked while the tool runs; true stops it.
  /// - Throws: `toolMissing`, `toolFailed` (not started, past the deadline, killed), `unwritable`,
  ///   `stopped`.
  static func run(
    _ name: String, _ arguments: [String], input: [UInt8]? = nil, deadline: Duration,
    isStopRequested: () -> Bool = { false }
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
        .unwritable,
        "cannot write to the temporary folder \(scratch.url.path); \(VideoError.writingAdvice)",
        cause: error)
    }
    try finish(process, name: name, deadline: deadline, isStopRequested: isStopRequested)
    let status = process.terminationStatus
    let isKilled = process.terminationReason != .exit
    // Who asks a job to stop may have sent the tool the same signal.
    if (isKilled || status != 0) && isStopRequested() { throw stopped(name) }
    if isKilled {
      throw VideoError(
        .toolFailed,
        "\(name) was ended by signal \(status), perhaps for want of memory; start again, or try a "
          + "shorter or smaller video")
    }
    do {
      return Output(
        status: status,
        standardOutput: [UInt8](try Data(contentsOf: outputFile)),
        standardError: String(decoding: try Data(contentsOf: errorFile), as: UTF8.self))
    } catch {
      throw VideoError(.toolFailed, "cannot read what \(name) wrote", cause: error)
    }
  }

  /// Starts the process and waits for its end; a process past its deadline, or that nobody waits
  /// for any more, is killed.
  private static func finish(
    _ process: Process, name: String, deadline: Duration, isStopRequested: () -> Bool
  ) throws {
    let ended = DispatchSemaphore(value: 0)
    process.terminationHandler = { _ in ended.signal() }
    do {
      try process.run()
    } catch {
      throw VideoError(.toolFailed, "\(name) could not be started", cause: error)
    }
    let end = DispatchTime.now() + .milliseconds(Int(deadline / .milliseconds(1)))
    while ended.wait(timeout: min(end, .now() + pollInterval)) == .timedOut {
      let isStopped = isStopRequested()
      guard isStopped || DispatchTime.now() >= end else { continue }
      kill(process.processIdentifier, SIGKILL)
      ended.wait()
      if isStopped { throw stopped(name) }
      throw VideoError(
        .toolFailed,
        "\(name) did not finish within \(deadline) and was stopped; try a shorter or smaller video")
    }
  }

  private static func stopped(_ name: String) -> VideoError {
    VideoError(.stopped, "\(name) was stopped on request; start again to go on")
  }

  /// The program on PATH.
  private static func locate(_ name: String) -> URL? {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin"
    return path.split(separator: ":").lazy
      .map { URL(filePath: String($0), directoryHint: .isDirectory).appending(path: name) }
      .first { FileManager.default.isExecutableFile(atPath: $0.path) }
  }
}
