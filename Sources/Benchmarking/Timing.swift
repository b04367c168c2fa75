// Seconds of repeated runs, told as the median with its neighbors.

import Basics
import Foundation

package struct Timing: Equatable, Sendable {
  package let median: Double
  package let minimum: Double
  package let maximum: Double
  /// From the 10th to the 90th percentile, over the median.
  package let spread: Double
  package let repeatCount: Int

  /// - Precondition: at least one run.
  package init(_ seconds: [Double]) {
    require(!seconds.isEmpty, "a timing of no runs")
    let sorted = seconds.sorted()
    let middle = sorted.count / 2
    let median =
      sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    func percentile(_ share: Double) -> Double {
      sorted[Int((share * Double(sorted.count - 1)).rounded())]
    }
    self.median = median
    spread = median > 0 ? (percentile(0.9) - percentile(0.1)) / median : 0
    minimum = sorted[0]
    maximum = sorted[sorted.count - 1]
    repeatCount = sorted.count
  }

  /// Times `body` after one run that warms caches, pages and clocks.
  package static func measuring(
    repeats: Int, _ body: () throws -> Void
  ) rethrows -> Timing {
    try body()
    let clock = ContinuousClock()
    return try Timing((0..<max(repeats, 1)).map { _ in try clock.measure(body) / .seconds(1) })
  }

  /// Times a short `body`: at least `repeats` runs and 0.2 s, at most a thousand runs.
  package static func measuringKernel(repeats: Int, _ body: () -> Void) -> Timing {
    body()
    let clock = ContinuousClock()
    let start = clock.now
    var seconds: [Double] = []
    while seconds.count < repeats
      || (seconds.count < 1_000 && clock.now - start < .seconds(0.2))
    {
      seconds.append(clock.measure(body) / .seconds(1))
    }
    return Timing(seconds)
  }
}

/// The keys of every timed thing: seconds end in `_s`.
extension Timing: Encodable {
  private enum CodingKeys: String, CodingKey {
    case median = "median_s"
    case minimum = "min_s"
    case maximum = "max_s"
    case spread
    case repeatCount = "repeats"
  }

  package func encode(to encoder: any Encoder) throws {
    var keys = encoder.container(keyedBy: CodingKeys.self)
    try keys.encode(median, forKey: .median)
    try keys.encode(minimum, forKey: .minimum)
    try keys.encode(maximum, forKey: .maximum)
    try keys.encode(spread, forKey: .spread)
    try keys.encode(repeatCount, forKey: .repeatCount)
  }
}
