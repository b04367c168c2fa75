// Which options may differ between a checkpoint and the run that goes on from it.

import Foundation

enum ResumeRules {
  /// Options that change how a run is carried out, not what it computes.
  private static let free = ["checkpoint.", "mesh.", "exchange.", "log.", "evaluate."]

  /// - Throws: `ConfigurationError` with every option that differs and may not.
  static func check(
    _ configuration: RunConfiguration, against saved: String, folder: URL
  ) throws {
    let old = try ConfigurationReader.read(yaml: saved)
    let problems = RunConfiguration.options.compactMap { option -> ConfigurationProblem? in
      let (before, now) = (option.text(old), option.text(configuration))
      guard before != now, !free.contains(where: option.key.hasPrefix) else { return nil }
      return ConfigurationProblem(
        option.key,
        "is \(now), but \(folder.path) was made with \(before): set it back, choose another folder "
          + "with --run, or start over with --resume never")
    }
    guard problems.isEmpty else { throw ConfigurationError(problems) }
  }
}
