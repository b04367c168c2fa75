// How the report writes text and numbers; the same on every machine and in every locale.

import Foundation

package enum ReportText {
  /// Text for element content and quoted attributes.
  static func escaped(_ text: String) -> String {
    var result = ""
    for character in text.unicodeScalars {
      switch character {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "\"": result += "&quot;"
      case "'": result += "&#39;"
      default: result.unicodeScalars.append(character)
      }
    }
    return result
  }

  /// Rounded to `digits` after the point; ∞ and – for what is no number.
  static func fixed(_ value: Double, digits: Int) -> String {
    guard value.isFinite else { return value.isNaN ? "–" : value < 0 ? "−∞" : "∞" }
    let text = String(format: "%.\(digits)f", value)
    return text.allSatisfy { "-0.".contains($0) } && text.hasPrefix("-")
      ? String(text.dropFirst()) : text
  }

  /// Up to four significant digits, thousands as k and millions as M, without trailing zeros.
  static func compact(_ value: Double) -> String {
    guard value.isFinite else { return fixed(value, digits: 0) }
    let magnitude = abs(value)
    if magnitude >= 1e15 || (magnitude < 1e-4 && magnitude > 0) {
      return String(format: "%.3g", value)
    }
    if magnitude >= 9_999_500 { return trimmed(fixed(value / 1e6, digits: 2)) + "M" }
    if magnitude >= 9_999.5 { return trimmed(fixed(value / 1e3, digits: 1)) + "k" }
    return trimmed(String(format: "%.4f", Double(String(format: "%.4g", value)) ?? value))
  }

  /// Binary units, three significant digits or so.
  package static func bytes(_ count: Int) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"]
    var value = Double(count)
    var unit = 0
    while value >= 1024, unit < units.count - 1 {
      value /= 1024
      unit += 1
    }
    return "\(unit == 0 ? String(count) : fixed(value, digits: value < 100 ? 1 : 0)) \(units[unit])"
  }

  /// Whole seconds as `1 h 02 min`, `3 min 05 s`, `12.3 s`.
  static func duration(_ seconds: Double) -> String {
    guard seconds.isFinite, seconds < 1e12 else { return fixed(seconds, digits: 0) }
    if seconds < 60 { return fixed(seconds, digits: 1) + " s" }
    let whole = Int(seconds.rounded())
    return whole < 3600
      ? String(format: "%d min %02d s", whole / 60, whole % 60)
      : String(format: "%d h %02d min", whole / 3600, whole % 3600 / 60)
  }

  private static func trimmed(_ text: String) -> String {
    guard text.contains(".") else { return text }
    var result = text
    while result.hasSuffix("0") { result.removeLast() }
    if result.hasSuffix(".") { result.removeLast() }
    return result == "-0" ? "0" : result
  }
}
