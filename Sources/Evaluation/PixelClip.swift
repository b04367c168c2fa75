// The pixels that every metric takes: what a viewer sees, after rounding to 8 bits.

import Basics

/// A clip of RGB frames, frames × height × width × 3, values 0 to 255.
package struct PixelClip: Hashable, Sendable {
  package static let channelCount = 3

  package let pixels: [UInt8]
  package let frameCount: Int
  package let height: Int
  package let width: Int

  /// - Precondition: at least one frame and `frameCount · height · width · 3` values.
  package init(pixels: [UInt8], frameCount: Int, height: Int, width: Int) {
    require(
      frameCount > 0 && height > 0 && width > 0,
      "a clip of \(frameCount) frames of \(height)×\(width) has no pixels")
    require(
      pixels.count == frameCount * height * width * Self.channelCount,
      "\(pixels.count) values for \(frameCount)×\(height)×\(width)×\(Self.channelCount)")
    self.pixels = pixels
    self.frameCount = frameCount
    self.height = height
    self.width = width
  }

  /// The clip of values in [−1, 1], rounded to the nearest level; values outside are clamped and
  /// NaN becomes 0.
  package init(signed values: [Float], frameCount: Int, height: Int, width: Int) {
    let pixels = values.map { value -> UInt8 in
      guard !value.isNaN else { return 0 }
      return UInt8(((min(max(value, -1), 1) + 1) * 127.5).rounded())
    }
    self.init(pixels: pixels, frameCount: frameCount, height: height, width: width)
  }

  /// Values in one frame: height · width · 3.
  package var frameValueCount: Int { height * width * Self.channelCount }

  func preconditionSameShape(as other: PixelClip) {
    require(
      frameCount == other.frameCount && height == other.height && width == other.width,
      "a clip of \(frameCount)×\(height)×\(width) compared with one of "
        + "\(other.frameCount)×\(other.height)×\(other.width)")
  }
}
