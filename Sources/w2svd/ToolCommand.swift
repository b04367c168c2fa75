// The tree of commands (design, section 7).

import ArgumentParser
import Foundation
import Training

struct ToolCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "w2svd",
    abstract: "Plans, inspects, samples and evaluates runs of w2svd-worker; needs no MPI.",
    discussion: """
      Exit codes: 0 done, 2 wrong arguments, configuration or files, 1 anything else (also: a \
      verification or a check that found something).
      """,
    version: Version.text,
    subcommands: [
      PlanCommand.self, DataCommand.self, SampleCommand.self, EvaluateCommand.self,
      ReportCommand.self, CheckpointCommand.self, ForwardCommand.self, DoctorCommand.self,
      BenchCommand.self,
    ])
}

/// Where a configuration comes from, as for the worker.
struct ConfigurationArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "A YAML file with what differs from the defaults. Default: none.", valueName: "file.yaml"))
  var config: String?

  @Option(
    help: ArgumentHelp(
      "Overrides one key; may be repeated. Stronger than --config.", valueName: "key.path=value"))
  var set: [String] = []

  func read(rankCount: Int? = nil) throws -> RunConfiguration {
    try ConfigurationReader.read(
      file: config, overrides: set, rankCount: rankCount, warn: { complain($0 + "\n") })
  }
}

/// Prints one JSON object as one line; called last.
func printJSON(_ value: some Encodable) throws {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  encoder.keyEncodingStrategy = .convertToSnakeCase
  print(String(decoding: try encoder.encode(value), as: UTF8.self))
}

/// A line for people on standard error, so that standard output stays clean.
@Sendable func complain(_ text: String) {
  FileHandle.standardError.write(Data(text.utf8))
}
