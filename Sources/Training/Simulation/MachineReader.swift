// The numbers of a machine from a file, from what a benchmark of links wrote, and from the command line.
//
// A machine file is YAML (JSON is YAML too): `bandwidthBetween: 25e9`. Later sources are stronger: file,
// links, overrides. All problems are told at once.

import Basics
import Foundation
package import Planning

package enum MachineReader {
  /// - Parameters:
  ///   - file: a YAML or JSON file of machine numbers.
  ///   - links: what `w2svd-worker bench collectives --json` printed; its last line counts.
  ///   - overrides: `key=value`.
  /// - Throws: `JobError` with every problem, for exit code 2.
  package static func read(
    _ machine: MachineModel = MachineModel(), file: String? = nil, links: String? = nil,
    overrides: [String] = []
  ) throws -> MachineModel {
    var machine = machine
    var problems: [String] = []
    if let file { apply(contents(of: file, "--machine", &problems), to: &machine, &problems) }
    if let links {
      let text = contents(of: links, "--links", &problems)
        .split(whereSeparator: \.isNewline).last.map(String.init)
      apply(text ?? "", below: "machine.", to: &machine, &problems)
    }
    for override in overrides {
      let parts = override.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if parts.count == 2 {
        set(String(parts[0]), String(parts[1]), in: &machine, &problems)
      } else {
        problems.append("--machine-set \(override): write it as key=value")
      }
    }
    guard problems.isEmpty else {
      let count = problems.count == 1 ? "a problem" : "\(problems.count) problems"
      throw JobError(
        exitCode: .configuration,
        "the machine has \(count):\n" + problems.map { "  \($0)" }.joined(separator: "\n"))
    }
    return machine
  }

  private static func contents(
    of file: String, _ option: String, _ problems: inout [String]
  ) -> String {
    do { return try String(contentsOfFile: file, encoding: .utf8) } catch {
      problems.append("\(option): \(file) cannot be read; check the path")
      return ""
    }
  }

  /// - Parameter prefix: keys below it count, others are left alone; empty: all keys count.
  private static func apply(
    _ text: String, below prefix: String = "", to machine: inout MachineModel,
    _ problems: inout [String]
  ) {
    do {
      let values = try ConfigurationReader.values(ofYAML: text)
      for (key, value) in values.sorted(by: { $0.key < $1.key }) where key.hasPrefix(prefix) {
        let name = String(key.dropFirst(prefix.count))
        switch value {
        case .scalar(let text): set(name, text, in: &machine, &problems)
        case .list: problems.append("\(name): expected a number, found a list")
        }
      }
    } catch let error as ConfigurationError {
      problems += error.problems.map(\.description)
    } catch {
      problems.append("\(error)")
    }
  }

  private static func set(
    _ key: String, _ text: String, in machine: inout MachineModel, _ problems: inout [String]
  ) {
    guard let option = MachineOption.all.first(where: { $0.key == key }) else {
      let keys = MachineOption.all.map(\.key).joined(separator: ", ")
      problems.append("\(key): there is no such number; there are \(keys)")
      return
    }
    guard let value = Double(text) else {
      problems.append("\(key): expected a number in \(option.unit), found '\(text)'")
      return
    }
    if let problem = option.set(&machine, value) { problems.append("\(key): \(problem)") }
  }
}
