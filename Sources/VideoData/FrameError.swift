// Squared error and PSNR on bytes. Sums are exact integers, so no order matters.

import Basics
import Foundation

/// Mean squared error over all bytes, in units of byte².
/// - Precondition: both videos have one shape and at least a frame.
package func meanSquaredError(_ a: Video, _ b: Video) -> Double {
  require(
    a.frameCount == b.frameCount && a.height == b.height && a.width == b.width,
    "comparing \(a.frameCount)×\(a.height)×\(a.width) with \(b.frameCount)×\(b.height)×\(b.width)")
  require(!a.bytes.isEmpty, "comparing videos without frames")
  var sum = 0
  for index in a.bytes.indices {
    let difference = Int(a.bytes[index]) - Int(b.bytes[index])
    sum += difference * difference
  }
  return Double(sum) / Double(a.bytes.count)
}

/// What no error reads as, in dB: a number that tables can average and JSON can hold.
package let largestPeakSignalToNoise = 100.0

/// 10 log₁₀(255² / error) in dB, at most `largestPeakSignalToNoise`.
package func peakSignalToNoise(meanSquaredError error: Double) -> Double {
  error == 0
    ? largestPeakSignalToNoise : min(10 * log10(255 * 255 / error), largestPeakSignalToNoise)
}

/// PSNR of two videos of one shape, in dB.
package func peakSignalToNoise(_ a: Video, _ b: Video) -> Double {
  peakSignalToNoise(meanSquaredError: meanSquaredError(a, b))
}
