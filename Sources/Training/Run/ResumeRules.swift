// Which options may differ between a checkpoint and the run that goes on from it.

import Foundation

enum ResumeRules {
  /// Options that change how a run is carried out, not what it computes.
  private static let free = [
    "checkpoint.", "mesh.", "exchange.", "log.", "evaluate.", "model.recompute", "model.offload",
    "compute.threads", "compute.packedWeights",
  ]

  /// Options that these prefixes name and that change what a run computes all the same.
  private static let bound = ["mesh.sums"]

  /// Options that a checkpoint of the teach phase knows nothing of yet.
  private static let ofLaterPhases = ["distill.", "sample."]

  /// - Parameters:
  ///   - saved: the configuration that the checkpoint was made with.
  ///   - phase: the phase that it was made in.
  /// - Throws: `ConfigurationError` with every option that differs and may not.
  static func check(
    _ configuration: RunConfiguration, against saved: String, phase: String, folder: URL
  ) throws {
    let free = phase == TeachPhase.name ? free + ofLaterPhases : free
    let old = try ConfigurationReader.read(stored: saved)
    let problems = RunConfiguration.options.compactMap { option -> ConfigurationProblem? in
      let (before, now) = (option.text(old), option.text(configuration))
      // `PrecisionRule` gives auto its meaning.
      if option.key == "compute.precision" && [before, now].contains("auto") { return nil }
      let isFree = free.contains(where: option.key.hasPrefix) && !bound.contains(option.key)
      guard before != now, !isFree else { return nil }
      return ConfigurationProblem(
        option.key,
        "is \(now), but \(folder.path) was made with \(before): set it back, choose another folder "
          + "with --run, or start over with --resume never")
    }
    guard problems.isEmpty else { throw ConfigurationError(problems) }
  }

  /// Whether an option of a section differs.
  static func differ(_ a: RunConfiguration, _ b: RunConfiguration, in section: String) -> Bool {
    RunConfiguration.options.contains { option in
      option.key.hasPrefix(section) && option.text(a) != option.text(b)
    }
  }
}
