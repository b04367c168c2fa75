// SSIM of a clip against a reference: per frame and color channel, over all positions where the
// 11×11 Gaussian window (σ = 1.5) lies inside the frame, averaged over positions, channels, frames.
//
//   SSIM = (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2))
//
// with C1 = (0.01·255)², C2 = (0.03·255)² and weighted moments divided by the sum of weights.
// - Source: Wang, Bovik, Sheikh, Simoncelli 2004, equation 13. Their images are gray; color is the
//   mean over R, G, B, as in scikit-image's `structural_similarity(channel_axis:)`.

import Basics
import Foundation

package enum StructuralSimilarity {
  static let radius = 5
  static let deviation = 1.5
  static let meanConstant = (0.01 * 255) * (0.01 * 255)
  static let varianceConstant = (0.03 * 255) * (0.03 * 255)
  /// Height and width below this have no position for the window.
  package static let smallestExtent = 2 * radius + 1

  /// Mean SSIM, 1 for equal clips.
  ///
  /// - Precondition: frames of at least 11×11.
  package static func mean(_ clip: PixelClip, reference: PixelClip) -> Double {
    clip.preconditionSameShape(as: reference)
    require(
      clip.height >= smallestExtent && clip.width >= smallestExtent,
      "frames of \(clip.height)×\(clip.width), the window of SSIM is 11×11")
    var sum = 0.0
    for frame in 0..<clip.frameCount {
      for channel in 0..<PixelClip.channelCount {
        sum += mean(
          plane(of: clip, frame: frame, channel: channel),
          plane(of: reference, frame: frame, channel: channel), height: clip.height,
          width: clip.width)
      }
    }
    return sum / Double(clip.frameCount * PixelClip.channelCount)
  }

  static let window: [Double] = {
    let weights = (-radius...radius).map { exp(-Double($0 * $0) / (2 * deviation * deviation)) }
    let total = weights.reduce(0, +)
    return weights.map { $0 / total }
  }()

  private static func plane(of clip: PixelClip, frame: Int, channel: Int) -> [Double] {
    let start = frame * clip.frameValueCount + channel
    return (0..<(clip.height * clip.width)).map {
      Double(clip.pixels[start + $0 * PixelClip.channelCount])
    }
  }

  private static func mean(_ x: [Double], _ y: [Double], height: Int, width: Int) -> Double {
    let meanX = filtered(x, height: height, width: width)
    let meanY = filtered(y, height: height, width: width)
    let squareX = filtered(zip(x, x).map { $0 * $1 }, height: height, width: width)
    let squareY = filtered(zip(y, y).map { $0 * $1 }, height: height, width: width)
    let product = filtered(zip(x, y).map { $0 * $1 }, height: height, width: width)
    var sum = 0.0
    for index in meanX.indices {
      let (mx, my) = (meanX[index], meanY[index])
      let varianceX = squareX[index] - mx * mx
      let varianceY = squareY[index] - my * my
      let covariance = product[index] - mx * my
      sum +=
        (2 * mx * my + meanConstant) * (2 * covariance + varianceConstant)
        / ((mx * mx + my * my + meanConstant) * (varianceX + varianceY + varianceConstant))
    }
    return sum / Double(meanX.count)
  }

  /// The window's weighted mean at every position where it fits: rows first, then columns.
  private static func filtered(_ plane: [Double], height: Int, width: Int) -> [Double] {
    let outputWidth = width - 2 * radius
    let outputHeight = height - 2 * radius
    var rows = [Double](repeating: 0, count: height * outputWidth)
    for y in 0..<height {
      for (tap, weight) in window.enumerated() {
        for x in 0..<outputWidth {
          rows[y * outputWidth + x] += weight * plane[y * width + x + tap]
        }
      }
    }
    var result = [Double](repeating: 0, count: outputHeight * outputWidth)
    for y in 0..<outputHeight {
      for (tap, weight) in window.enumerated() {
        for x in 0..<outputWidth {
          result[y * outputWidth + x] += weight * rows[(y + tap) * outputWidth + x]
        }
      }
    }
    return result
  }
}
