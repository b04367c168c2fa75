// Where everything of a run lies (contract 4.8).

import Basics
package import Foundation

package struct RunFolder: Sendable {
  package let url: URL

  /// A name with a slash is a folder, else it lies under `runs/`.
  package init(_ nameOrFolder: String) {
    url =
      nameOrFolder.contains("/")
      ? URL(filePath: nameOrFolder, directoryHint: .isDirectory)
      : URL(filePath: "runs/\(nameOrFolder)", directoryHint: .isDirectory)
  }

  package var configuration: URL { url.appending(path: "config.yaml") }
  package var plan: URL { url.appending(path: "plan.txt") }
  package var metrics: URL { url.appending(path: "metrics.jsonl") }
  package var checkpoints: URL { url.appending(path: "checkpoints") }
  package var prepared: URL { url.appending(path: "prepared") }
  package var samples: URL { url.appending(path: "samples") }
  package var evaluation: URL { url.appending(path: "evaluation") }
  package var memory: URL { url.appending(path: "memory.json") }
  package var traffic: URL { url.appending(path: "traffic.json") }
  package var report: URL { url.appending(path: "report.html") }

  /// A Hugging Face folder of the final weights of a role.
  package func final(_ role: FinalRole) -> URL { url.appending(path: "final/\(role.rawValue)") }

  package enum FinalRole: String, CaseIterable, Sendable { case real, fake, generator }

  /// `value` as JSON, whole or not at all.
  package static func write(_ value: some Encodable, to file: URL) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    try write(encoder.encode(value), to: file)
  }

  package static func write(_ bytes: Data, to file: URL) throws {
    do {
      try FileManager.default.createDirectory(
        at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      try bytes.write(to: file, options: .atomic)
    } catch {
      throw cannotWrite(file, error)
    }
  }

  static func cannotWrite(_ place: URL, _ error: any Error) -> JobError {
    JobError(
      exitCode: .other,
      "\(place.path) could not be written: \(words(of: error)); free some space or check "
        + "the permissions, then start again")
  }
}
