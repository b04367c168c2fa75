// Where a run goes on: the checkpoint it starts from, and what an earlier start of the same run
// finished. Rank 0 chooses; the others are told.

import Checkpoints
package import Foundation
import VideoData

/// What the user asked of `--resume`.
package enum ResumeMode: Equatable, Sendable {
  /// The newest valid checkpoint of the run folder; without one, from the start.
  case auto
  /// From the start; a run that is there already is moved aside.
  case never
  /// A checkpoint folder, from any run of the same model. Once the run has saved a checkpoint of its
  /// own, the same request goes on from there, whether or not that folder still exists.
  case checkpoint(URL)

  package init(_ text: String) {
    switch text {
    case "auto": self = .auto
    case "never": self = .never
    default: self = .checkpoint(URL(filePath: text))
    }
  }
}

/// A checkpoint, and how far into the run it is.
struct StartingPoint: Codable {
  let folder: URL
  let phase: String
  /// Steps of the phase that are done.
  let phaseStep: Int
  /// `DataFingerprint.text` of what it was trained on.
  let dataFingerprint: String?
  let precision: RunConfiguration.PrecisionChoice
  /// The checkpoint that `--resume` named when the run began.
  let origin: String?

  /// The checkpoint to start from, verified whole; nil starts from the beginning.
  /// - Throws: `ConfigurationError` for one that does not fit the configuration; `JobError` for one
  ///   that was asked for by name and is not there, is damaged or does not fit the run folder.
  static func choose(
    _ mode: ResumeMode, in folder: RunFolder, for configuration: RunConfiguration,
    say: (String) -> Void
  ) throws -> StartingPoint? {
    switch mode {
    case .never: return nil
    case .checkpoint(let url):
      let origin = url.standardizedFileURL.path
      let own = CheckpointStore(folder.checkpoints).newestValid(deep: true)
      if let reader = own.reader, reader.manifest.fields.origin == origin {
        own.skipped.forEach { say("skipped checkpoint \($0)") }
        return try StartingPoint(reader, for: configuration, origin: origin, say: say)
      }
      let reader: CheckpointReader
      do { reader = try CheckpointReader(opening: url) } catch let error as CheckpointError {
        throw JobError(exitCode: .configuration, "--resume: \(error)")
      }
      let newest = CheckpointStore(folder.checkpoints).candidates().first
      guard newest == nil || newest?.step == reader.manifest.fields.step else {
        throw JobError(
          exitCode: .configuration,
          "--resume: \(folder.url.path) has checkpoints of other steps than \(url.path): choose an "
            + "empty folder with --run")
      }
      return try StartingPoint(reader, for: configuration, origin: origin, say: say)
    case .auto:
      let found = CheckpointStore(folder.checkpoints).newestValid(deep: true)
      found.skipped.forEach { say("skipped checkpoint \($0)") }
      return try found.reader.map {
        try StartingPoint(
          $0, for: configuration, origin: $0.manifest.fields.origin, say: say)
      }
    }
  }

  private init(
    _ reader: CheckpointReader, for configuration: RunConfiguration, origin: String?,
    say: (String) -> Void
  ) throws {
    let problems = reader.verify(deep: true)
    guard problems.isEmpty else {
      throw JobError(
        exitCode: .other,
        "\(reader.folder.path) is damaged: \(problems.map(\.description).joined(separator: "; "))")
    }
    let fields = reader.manifest.fields
    try ResumeRules.check(
      configuration, against: fields.configuration, phase: fields.phase, folder: reader.folder)
    folder = reader.folder
    phase = fields.phase
    phaseStep = fields.counters["phaseStep"] ?? 0
    dataFingerprint = fields.dataFingerprint
    precision = try ConfigurationReader.read(stored: fields.configuration).compute.precision
    self.origin = origin
    say("resuming \(phase) after step \(phaseStep): \(folder.path)")
  }

  /// What the run goes on learning from; nil where it was not noted.
  var data: DataFingerprint? { dataFingerprint.map { DataFingerprint($0) } }

  /// Going on with other videos would mix two data sets, or the latents of two codecs.
  func refusal(of error: VideoError) -> ConfigurationError {
    ConfigurationError([
      ConfigurationProblem(
        "data",
        "\(error.message) that \(folder.path) was trained on: put the videos and the run's prepared/ "
          + "back, choose another folder with --run, or start over with --resume never")
    ])
  }

  /// Whether W is what the teach phase leaves.
  func isTaught(_ configuration: RunConfiguration) -> Bool {
    phase == DistillPhase.name || phaseStep >= configuration.teach.steps
  }

  /// Whether the student is what the distill phase leaves.
  func isDistilled(_ configuration: RunConfiguration) -> Bool {
    if configuration.distill.method == .euler || configuration.distill.steps == 0 {
      return isTaught(configuration)
    }
    return phase == DistillPhase.name && phaseStep >= configuration.distill.steps
  }
}
