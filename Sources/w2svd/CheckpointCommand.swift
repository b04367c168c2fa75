// `w2svd checkpoint`: what was saved, whether it is whole, and its networks as Hugging Face folders.

import ArgumentParser
import Checkpoints
import Evaluation
import Foundation
import Training

struct CheckpointCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "checkpoint", abstract: "Lists, verifies, shows and exports checkpoints.",
    subcommands: [List.self, Verify.self, Show.self, Export.self])

  /// A run or a step folder.
  struct Place: ParsableArguments {
    @Argument(
      help: ArgumentHelp(
        "A run (name under runs/ or folder), or a checkpoints/step-… folder.",
        valueName: "run-or-step"))
    var path: String

    /// All checkpoints that are meant, newest first.
    /// - Throws: `JobError` if there is none.
    func candidates() throws -> [StepFolder] {
      let run = try StoredRun(path)
      if let step = run.step {
        let number = Int(step.lastPathComponent.drop { !$0.isNumber }) ?? 0
        return [StepFolder(step: number, folder: step)]
      }
      var found = Self.steps(in: run.folder.checkpoints)
      if found.isEmpty { found = Self.steps(in: run.folder.url) }
      if found.isEmpty, run.folder.url.lastPathComponent.hasPrefix("step-") {
        found = [StepFolder(step: 0, folder: run.folder.url)]
      }
      guard !found.isEmpty else {
        throw JobError(
          exitCode: .configuration, "\(run.folder.url.path) has no checkpoints; give a run folder")
      }
      return found
    }

    private static func steps(in folder: URL) -> [StepFolder] {
      CheckpointStore(folder).candidates().map { StepFolder(step: $0.step, folder: $0.folder) }
    }

    /// The step folder, or the newest checkpoint of the run that opens.
    func newest() throws -> CheckpointReader {
      let candidates = try candidates()
      for candidate in candidates {
        if let reader = try? CheckpointReader(opening: candidate.folder) { return reader }
      }
      return try CheckpointReader(opening: candidates[0].folder)
    }
  }

  struct List: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "list",
      abstract: "One line for each checkpoint, newest first: step, phase, size, or what is wrong.")

    @OptionGroup var place: Place

    @Flag(help: "Prints one JSON object on the last line. Default: off.")
    var json = false

    private struct Row: Encodable {
      let folder: String
      let step: Int
      let phase: String?
      let bytes: Int?
      let writers: Int?
      let problem: String?
    }

    func run() throws {
      let rows = try place.candidates().map { candidate -> Row in
        do {
          let manifest = try CheckpointReader(opening: candidate.folder).manifest
          return Row(
            folder: candidate.folder.path, step: candidate.step, phase: manifest.fields.phase,
            bytes: manifest.byteCount, writers: manifest.writerCount, problem: nil)
        } catch {
          return Row(
            folder: candidate.folder.path, step: candidate.step, phase: nil, bytes: nil,
            writers: nil, problem: "\(error)")
        }
      }
      if json { return try printJSON(["checkpoints": rows]) }
      for row in rows {
        let size = row.bytes.map(ReportText.bytes) ?? ""
        let detail =
          row.problem.map { "INVALID: \($0)" }
          ?? "\(row.phase ?? ""), \(size), written by \(row.writers ?? 0) ranks"
        print("step \(row.step): \(detail)")
      }
    }
  }

  struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "verify",
      abstract: "Compares every piece with its checksum; prints each damaged one and exits with 1.")

    @OptionGroup var place: Place

    func run() throws {
      var problemCount = 0
      for candidate in try place.candidates() {
        let name = candidate.folder.lastPathComponent
        let problems = CheckpointStore.verify(candidate.folder, deep: true)
        problemCount += problems.count
        if problems.isEmpty { print("\(name): whole") }
        for problem in problems { print("\(name): \(problem)") }
      }
      guard problemCount == 0 else {
        throw JobError(exitCode: .other, "\(problemCount) damaged pieces")
      }
    }
  }

  struct Show: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "show", abstract: "What a checkpoint holds; of a run, the newest valid one.")

    @OptionGroup var place: Place

    @Flag(help: "Also lists every tensor with type, shape and slices. Default: off.")
    var tensors = false

    @Flag(help: "Also prints the configuration of the run. Default: off.")
    var configuration = false

    func run() throws {
      let reader = try place.newest()
      let manifest = reader.manifest
      print(
        """
        \(reader.folder.path)
        step \(manifest.fields.step), phase \(manifest.fields.phase), mesh \(manifest.fields.mesh)
        \(manifest.tensors.count) tensors, \(ReportText.bytes(manifest.byteCount)) in \
        \(manifest.files.count) files
        """)
      for (name, count) in manifest.fields.counters.sorted(by: { $0.key < $1.key }) {
        print("\(name): \(count)")
      }
      if tensors {
        for (name, tensor) in manifest.tensors.sorted(by: { $0.key < $1.key }) {
          print(
            "\(name): \(tensor.type.rawValue) \(tensor.shape), \(tensor.slices.count) slices")
        }
      }
      if configuration { print(manifest.fields.configuration, terminator: "") }
    }
  }

  struct Export: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "export",
      abstract: "Writes the networks of a checkpoint as Hugging Face folders.",
      discussion: """
        real and generator become folders that diffusers loads, fake one that PEFT loads. Of a run, the \
        newest valid checkpoint is taken.
        """)

    enum Role: String, ExpressibleByArgument, CaseIterable { case real, fake, generator }

    @OptionGroup var place: Place

    @Option(
      help: ArgumentHelp(
        "Which network; may be repeated. Default: all that the checkpoint holds."))
    var role: [Role] = []

    @Option(
      help: ArgumentHelp("Folder that gets real/, fake/ and generator/.", valueName: "dir"))
    var output: String

    @Flag(
      help: "Takes the trained weights instead of their moving average. Default: the average.")
    var raw = false

    func run() throws {
      let networks = try CheckpointNetworks(place.newest().folder)
      let wanted =
        role.isEmpty
        ? networks.roles : role.compactMap { RunFolder.FinalRole(rawValue: $0.rawValue) }
      let target = URL(filePath: output)
      for role in wanted {
        let folder = target.appending(path: role.rawValue)
        guard !FileManager.default.fileExists(atPath: folder.path) else {
          throw JobError(
            exitCode: .configuration, "\(folder.path) is there already; choose another --output")
        }
        try FileManager.default.createDirectory(at: target, withIntermediateDirectories: true)
        try networks.export(role, usesAverage: !raw, to: folder)
        print(folder.path)
      }
    }
  }
}

/// A folder that is named like a checkpoint, or that the user says is one.
struct StepFolder {
  let step: Int
  let folder: URL
}
