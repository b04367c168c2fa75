// Two numbers that few sampling steps lose: motion and sharpness.

package enum FrameDifference {
  /// Mean |Iₜ₊₁ − Iₜ| over all values and adjacent frames, in levels of 0 to 255; 0 for one frame.
  package static func meanMagnitude(_ clip: PixelClip) -> Double {
    meanMagnitude(
      clip.pixels, lag: clip.frameValueCount, runLength: clip.pixels.count)
  }

  /// Mean |frame difference| as a share of the full range.
  package static func motion(_ clip: PixelClip) -> Double { meanMagnitude(clip) / 255 }

  /// Mean |difference of vertical neighbors| as a share of the full range; 0 for one row.
  package static func sharpness(_ clip: PixelClip) -> Double {
    meanMagnitude(
      clip.pixels, lag: clip.width * PixelClip.channelCount, runLength: clip.frameValueCount) / 255
  }

  /// Mean |v[i + lag] − v[i]| inside each run of `runLength` values.
  private static func meanMagnitude(_ values: [UInt8], lag: Int, runLength: Int) -> Double {
    guard runLength > lag else { return 0 }
    var sum = 0
    for start in stride(from: 0, to: values.count, by: runLength) {
      for index in start..<(start + runLength - lag) {
        sum += abs(Int(values[index + lag]) - Int(values[index]))
      }
    }
    return Double(sum) / Double(values.count / runLength * (runLength - lag))
  }
}
