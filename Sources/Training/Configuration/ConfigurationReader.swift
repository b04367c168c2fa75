// From YAML and `--set` to a configuration, with all problems at once.

import Basics
import Foundation
import Yams

/// A problem of the configuration, at a key path.
package struct ConfigurationProblem: Equatable, Sendable, CustomStringConvertible {
  package let key: String
  package let message: String

  package init(_ key: String, _ message: String) {
    self.key = key
    self.message = message
  }

  package var description: String { key.isEmpty ? message : "\(key): \(message)" }
}

/// Everything that is wrong with a configuration; ends the program with exit code 2.
package struct ConfigurationError: Error, CustomStringConvertible {
  package let problems: [ConfigurationProblem]

  package init(_ problems: [ConfigurationProblem]) { self.problems = problems }

  package var description: String {
    let count = problems.count == 1 ? "a problem" : "\(problems.count) problems"
    return "the configuration has \(count):\n"
      + problems.map { "  \($0)" }.joined(separator: "\n")
  }
}

package enum ConfigurationReader {
  /// The defaults, changed by the YAML text and then by the `key.path=value` overrides.
  /// - Parameter rankCount: ranks that were started, if the values must fit them.
  /// - Throws: `ConfigurationError` with the problems of both and of `validate()`.
  package static func read(
    yaml: String?, overrides: [String] = [], rankCount: Int? = nil
  ) throws(ConfigurationError) -> RunConfiguration {
    try read(
      yaml: yaml, overrides: overrides, rankCount: rankCount, defaults: RunConfiguration())
  }

  /// As a program is told it: a file and overrides. Sizes are those of the model folder, if one is
  /// named.
  /// - Parameter warn: gets a line for each reason why settings have no effect.
  /// - Throws: `ConfigurationError`; `JobError` for a file that cannot be read.
  package static func read(
    file: String?, overrides: [String], rankCount: Int?, warn: (String) -> Void
  ) throws -> RunConfiguration {
    var yaml: String?
    if let file {
      do {
        yaml = try String(contentsOfFile: file, encoding: .utf8)
      } catch {
        throw JobError(exitCode: .configuration, "--config: \(file) cannot be read; check the path")
      }
    }
    var configuration = try read(yaml: yaml, overrides: overrides, rankCount: rankCount)
    configuration.warnings.forEach { warn("warning: \($0)") }
    try configuration.adoptModelFolder()
    return configuration
  }

  /// What a run noted of itself. A key that is missing there is younger than the run, which did what
  /// programs did before there was that key.
  package static func read(stored yaml: String) throws(ConfigurationError) -> RunConfiguration {
    var earlier = RunConfiguration()
    earlier.compute.precision = .fp32
    earlier.distill.depths = .shared
    earlier.distill.schedule = .constant
    return try read(yaml: yaml, overrides: [], rankCount: nil, defaults: earlier)
  }

  private static func read(
    yaml: String?, overrides: [String], rankCount: Int?, defaults: RunConfiguration
  ) throws(ConfigurationError) -> RunConfiguration {
    var configuration = defaults
    var problems: [ConfigurationProblem] = []
    if let yaml {
      for (key, value) in entries(ofYAML: yaml, problems: &problems) {
        apply(value, at: key, to: &configuration, problems: &problems)
      }
    }
    for override in overrides {
      guard let equals = override.firstIndex(of: "="), equals != override.startIndex else {
        problems.append(.init("--set \(override)", "write it as key.path=value"))
        continue
      }
      let key = String(override[..<equals])
      let text = String(override[override.index(after: equals)...])
      apply(overrideValue(text), at: key, to: &configuration, problems: &problems)
    }
    problems += configuration.validate()
    if let rankCount { problems += configuration.validate(rankCount: rankCount) }
    guard problems.isEmpty else { throw ConfigurationError(problems) }
    return configuration
  }

  /// What a YAML text gives for each key, known or not.
  /// - Throws: `ConfigurationError` for text that is no mapping of plain values.
  static func values(ofYAML text: String) throws -> [String: ConfigurationValue] {
    var problems: [ConfigurationProblem] = []
    let entries = entries(ofYAML: text, problems: &problems)
    guard problems.isEmpty else { throw ConfigurationError(problems) }
    return Dictionary(entries) { _, last in last }
  }

  private static func apply(
    _ value: ConfigurationValue, at key: String, to configuration: inout RunConfiguration,
    problems: inout [ConfigurationProblem]
  ) {
    guard let option = RunConfiguration.options.first(where: { $0.key == key }) else {
      let nearest = nearestKey(to: key)
      problems.append(.init(key, "there is no such key; did you mean \(nearest)?"))
      return
    }
    if let problem = option.set(&configuration, value) { problems.append(.init(key, problem)) }
  }

  /// `[a, b]` is a list, anything else a scalar as it stands.
  private static func overrideValue(_ text: String) -> ConfigurationValue {
    guard text.hasPrefix("["), text.hasSuffix("]") else { return .scalar(text) }
    let items = text.dropFirst().dropLast().split(separator: ",")
    return .list(
      items.map { $0.trimmingCharacters(in: .whitespaces.union(.init(charactersIn: "\"'"))) })
  }

  private static func entries(
    ofYAML text: String, problems: inout [ConfigurationProblem]
  ) -> [(String, ConfigurationValue)] {
    do {
      guard let root = try Yams.compose(yaml: text) else { return [] }
      var result: [(String, ConfigurationValue)] = []
      flatten(root, key: "", into: &result, problems: &problems)
      return result
    } catch {
      problems.append(.init("", "the file is not YAML: \(error)"))
      return []
    }
  }

  private static func flatten(
    _ node: Node, key: String, into result: inout [(String, ConfigurationValue)],
    problems: inout [ConfigurationProblem]
  ) {
    switch node {
    case .mapping(let mapping):
      for (name, child) in mapping {
        guard let name = name.string else {
          problems.append(.init(key, "a key must be text"))
          continue
        }
        flatten(
          child, key: key.isEmpty ? name : "\(key).\(name)", into: &result, problems: &problems)
      }
    case .sequence(let sequence):
      let items = sequence.compactMap { $0.scalar?.string }
      guard !key.isEmpty, items.count == sequence.count else {
        problems.append(.init(key, "expected a list of plain values"))
        return
      }
      result.append((key, .list(items)))
    case .scalar(let scalar):
      if key.isEmpty {
        if !scalar.string.isEmpty {
          problems.append(.init("", "the file must be a mapping of keys, found '\(scalar.string)'"))
        }
      } else if !isEmptySection(scalar.string, at: key) {
        result.append((key, .scalar(scalar.string)))
      }
    case .alias:
      problems.append(.init(key, "aliases are not supported; write the value out"))
    }
  }

  /// Whether this is a section all of whose keys are commented out.
  private static func isEmptySection(_ text: String, at key: String) -> Bool {
    ["", "~", "null"].contains(text)
      && RunConfiguration.options.contains { $0.key.hasPrefix(key + ".") }
  }

  /// The key with the smallest edit distance; equal last parts count as near.
  static func nearestKey(to key: String) -> String {
    let last = key.split(separator: ".").last.map(String.init) ?? key
    func distance(_ candidate: String) -> Int {
      let candidateLast = candidate.split(separator: ".").last.map(String.init) ?? candidate
      return min(
        editDistance(key, candidate), 2 + editDistance(last, candidateLast))
    }
    let keys = RunConfiguration.options.map(\.key)
    return keys.min { distance($0) < distance($1) } ?? ""
  }

  /// Levenshtein distance over lower-cased characters.
  private static func editDistance(_ first: String, _ second: String) -> Int {
    let (a, b) = (Array(first.lowercased()), Array(second.lowercased()))
    var row = Array(0...b.count)
    for i in a.indices {
      var diagonal = row[0]
      row[0] = i + 1
      for j in b.indices {
        let substituted = diagonal + (a[i] == b[j] ? 0 : 1)
        diagonal = row[j + 1]
        row[j + 1] = min(substituted, row[j] + 1, row[j + 1] + 1)
      }
    }
    return row[b.count]
  }
}

extension RunConfiguration {
  /// The resolved configuration as YAML; reading it gives the same configuration again.
  package var yaml: String {
    var lines: [String] = []
    var section = ""
    for option in Self.options {
      let parts = option.key.split(separator: ".", maxSplits: 1).map(String.init)
      if parts.count == 1 {
        lines.append("\(parts[0]): \(option.text(self))")
        continue
      }
      if parts[0] != section {
        section = parts[0]
        lines.append("\(section):")
      }
      lines.append("  \(parts[1]): \(option.text(self))")
    }
    return lines.joined(separator: "\n") + "\n"
  }
}
