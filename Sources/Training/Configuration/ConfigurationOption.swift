// One option: its key, unit, effect, and how its text is read and written.

/// What a YAML file or `--set` gives for a key.
package enum ConfigurationValue: Equatable, Sendable {
  case scalar(String)
  case list([String])
}

/// An option of the run configuration.
package struct ConfigurationOption: Sendable {
  package let key: String
  /// "steps", "pixels", "fraction" …; empty for a choice or a path.
  package let unit: String
  package let effect: String
  /// The value as YAML writes it.
  package let text: @Sendable (RunConfiguration) -> String
  /// Sets the value; returns what is wrong with it, or nil.
  package let set: @Sendable (inout RunConfiguration, ConfigurationValue) -> String?
}

extension ConfigurationOption {
  static func integer(
    _ key: String, _ path: any WritableKeyPath<RunConfiguration, Int> & Sendable, _ unit: String,
    _ effect: String
  ) -> Self {
    scalar(key, path, unit, effect, expected: "a whole number", text: { "\($0)" }) { text in
      Int(text.replacing("_", with: ""))
    }
  }

  static func number(
    _ key: String, _ path: any WritableKeyPath<RunConfiguration, Double> & Sendable, _ unit: String,
    _ effect: String
  ) -> Self {
    scalar(key, path, unit, effect, expected: "a number", text: { "\($0)" }) { text in
      Double(text).flatMap { $0.isFinite ? $0 : nil }
    }
  }

  static func flag(
    _ key: String, _ path: any WritableKeyPath<RunConfiguration, Bool> & Sendable, _ effect: String
  ) -> Self {
    scalar(key, path, "", effect, expected: "true or false", text: { "\($0)" }) { text in
      Bool(text)
    }
  }

  static func string(
    _ key: String, _ path: any WritableKeyPath<RunConfiguration, String> & Sendable,
    _ effect: String
  ) -> Self {
    scalar(key, path, "", effect, expected: "text", text: quoted) { $0 }
  }

  static func strings(
    _ key: String, _ path: any WritableKeyPath<RunConfiguration, [String]> & Sendable,
    _ effect: String
  ) -> Self {
    Self(
      key: key, unit: "", effect: effect,
      text: { configuration in
        "[" + configuration[keyPath: path].map(quoted).joined(separator: ", ") + "]"
      },
      set: { configuration, value in
        switch value {
        case .list(let items): configuration[keyPath: path] = items
        case .scalar(let text):
          configuration[keyPath: path] = text.split(separator: ",").map(String.init)
        }
        return nil
      })
  }

  static func choice<Choice: RawRepresentable & CaseIterable & Sendable>(
    _ key: String, _ path: any WritableKeyPath<RunConfiguration, Choice> & Sendable,
    _ effect: String
  ) -> Self where Choice.RawValue == String {
    let names = Choice.allCases.map(\.rawValue).joined(separator: ", ")
    return scalar(
      key, path, "", effect, expected: "one of \(names)", text: { $0.rawValue },
      parse: { Choice(rawValue: $0) })
  }

  static func word(
    _ key: String, _ path: any WritableKeyPath<RunConfiguration, String> & Sendable,
    among words: [String], _ effect: String
  ) -> Self {
    scalar(
      key, path, "", effect, expected: "one of \(words.joined(separator: ", "))", text: { $0 },
      parse: { words.contains($0) ? $0 : nil })
  }

  static func degree(
    _ key: String,
    _ path: any WritableKeyPath<RunConfiguration, RunConfiguration.Degree> & Sendable,
    _ effect: String
  ) -> Self {
    scalar(
      key, path, "ranks", effect, expected: "auto or a whole number of ranks",
      text: { "\($0)" },
      parse: { text in text == "auto" ? .auto : Int(text).map { .fixed($0) } })
  }

  /// A number that the coordinator may choose.
  static func number(
    _ key: String,
    _ path: any WritableKeyPath<RunConfiguration, RunConfiguration.Degree> & Sendable,
    _ effect: String
  ) -> Self {
    scalar(
      key, path, "", effect, expected: "auto or a whole number", text: { "\($0)" },
      parse: { text in text == "auto" ? .auto : Int(text).map { .fixed($0) } })
  }

  static func scalar<Value>(
    _ key: String, _ path: any WritableKeyPath<RunConfiguration, Value> & Sendable, _ unit: String,
    _ effect: String, expected: String, text: @escaping @Sendable (Value) -> String,
    parse: @escaping @Sendable (String) -> Value?
  ) -> Self {
    Self(
      key: key, unit: unit, effect: effect,
      text: { text($0[keyPath: path]) },
      set: { configuration, value in
        guard case .scalar(let written) = value else {
          return "expected \(expected), found a list"
        }
        guard let parsed = parse(written) else {
          return "expected \(expected), found '\(written)'"
        }
        configuration[keyPath: path] = parsed
        return nil
      })
  }

  /// A YAML string in double quotes.
  static func quoted(_ text: String) -> String {
    let escaped = text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"")
    return "\"\(escaped)\""
  }
}
