// Memory and processor time of this process, as Linux counts them under /proc/self.

import Foundation

package struct ResourceUsage: Hashable, Sendable {
  /// Largest resident set so far (VmHWM).
  package var peakByteCount: Int
  /// Resident set now (VmRSS).
  package var residentByteCount: Int
  /// User and system time of all threads, dead ones included.
  package var cpuSeconds: Double

  /// This process now; nil where the system has no /proc.
  package static func current() -> Self? {
    guard
      let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8),
      let stat = try? String(contentsOfFile: "/proc/self/stat", encoding: .utf8)
    else { return nil }
    return Self(status: status, stat: stat, ticksPerSecond: Double(sysconf(Int32(_SC_CLK_TCK))))
  }

  init?(status: String, stat: String, ticksPerSecond: Double) {
    // Fields of `stat` count from the name, which may hold spaces and parentheses.
    guard
      let peak = Self.kibibytes("VmHWM", in: status),
      let resident = Self.kibibytes("VmRSS", in: status), let nameEnd = stat.lastIndex(of: ")")
    else { return nil }
    let fields = stat[stat.index(after: nameEnd)...].split(separator: " ")
    guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else {
      return nil
    }
    peakByteCount = peak * 1024
    residentByteCount = resident * 1024
    cpuSeconds = (user + system) / ticksPerSecond
  }

  private static func kibibytes(_ name: String, in status: String) -> Int? {
    for line in status.split(separator: "\n") where line.hasPrefix(name + ":") {
      return line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap {
        Int($0)
      }
    }
    return nil
  }
}
