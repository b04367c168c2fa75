// Lines of the tables that people read.

import Foundation

package enum TextTable {
  /// Name, sizes, time with half its spread, then whatever else is known.
  static func row(_ name: String, _ sizes: String, _ timing: Timing, _ more: String...) -> String {
    let time = String(format: "%10.3f ms ±%4.1f %%", 1e3 * timing.median, 50 * timing.spread)
    return ([padded(name, 30), padded(sizes, 22), time] + more).joined(separator: "  ")
  }

  private static func padded(_ text: String, _ width: Int) -> String {
    text.count >= width ? text : text + String(repeating: " ", count: width - text.count)
  }
}
