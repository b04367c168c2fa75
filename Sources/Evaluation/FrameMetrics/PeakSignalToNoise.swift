// PSNR of a clip against a reference.

import VideoData

package enum PeakSignalToNoise {
  /// 10 log₁₀(255² / MSE) in dB, the error averaged over all values of the clip before the
  /// logarithm; 100 dB for equal clips.
  package static func decibels(_ clip: PixelClip, reference: PixelClip) -> Double {
    clip.preconditionSameShape(as: reference)
    var sum = 0
    for index in clip.pixels.indices {
      let error = Int(clip.pixels[index]) - Int(reference.pixels[index])
      sum += error * error
    }
    return peakSignalToNoise(meanSquaredError: Double(sum) / Double(clip.pixels.count))
  }
}
