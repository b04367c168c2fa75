// The one picture type of the module: RGB bytes, frame by frame. A clip is a short video, an image
// is a video of one frame.
//
// Letters: F frames, H height, W width.

import Basics

/// Frames of RGB bytes, F×H×W×3 row-major.
package struct Video: Hashable, Sendable {
  package let frameCount: Int
  package let height: Int
  package let width: Int
  package let bytes: [UInt8]

  /// - Precondition: `bytes` holds frameCount · height · width · 3 values.
  package init(frameCount: Int, height: Int, width: Int, bytes: [UInt8]) {
    require(
      frameCount >= 0 && height > 0 && width > 0
        && bytes.count == frameCount * height * width * 3,
      "\(bytes.count) bytes for \(frameCount) frames of \(height)×\(width)×3")
    self.frameCount = frameCount
    self.height = height
    self.width = width
    self.bytes = bytes
  }

  package var bytesPerFrame: Int { height * width * 3 }

  /// Where the red byte of a pixel lies; green and blue follow.
  package func offset(frame: Int, y: Int, x: Int) -> Int {
    ((frame * height + y) * width + x) * 3
  }

  /// The frames of a range.
  package func frames(_ range: Range<Int>) -> Video {
    require(
      range.lowerBound >= 0 && range.upperBound <= frameCount,
      "frames \(range) of a video of \(frameCount)")
    return Video(
      frameCount: range.count, height: height, width: width,
      bytes: Array(bytes[range.lowerBound * bytesPerFrame..<range.upperBound * bytesPerFrame]))
  }

  /// A rectangle of every frame.
  package func cropped(top: Int, left: Int, height cropHeight: Int, width cropWidth: Int) -> Video {
    require(
      top >= 0 && left >= 0 && top + cropHeight <= height && left + cropWidth <= width,
      "a crop of \(cropHeight)×\(cropWidth) at (\(top), \(left)) of frames of \(height)×\(width)")
    var result: [UInt8] = []
    result.reserveCapacity(frameCount * cropHeight * cropWidth * 3)
    for frame in 0..<frameCount {
      for y in 0..<cropHeight {
        let start = offset(frame: frame, y: top + y, x: left)
        result.append(contentsOf: bytes[start..<start + cropWidth * 3])
      }
    }
    return Video(frameCount: frameCount, height: cropHeight, width: cropWidth, bytes: result)
  }

  /// Left and right exchanged.
  package var mirrored: Video {
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count)
    for row in 0..<frameCount * height {
      for x in stride(from: width - 1, through: 0, by: -1) {
        let start = (row * width + x) * 3
        result.append(bytes[start])
        result.append(bytes[start + 1])
        result.append(bytes[start + 2])
      }
    }
    return Video(frameCount: frameCount, height: height, width: width, bytes: result)
  }

  /// The last frame first.
  package var reversed: Video {
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count)
    for frame in stride(from: frameCount - 1, through: 0, by: -1) {
      result.append(contentsOf: bytes[frame * bytesPerFrame..<(frame + 1) * bytesPerFrame])
    }
    return Video(frameCount: frameCount, height: height, width: width, bytes: result)
  }

  // MARK: Numbers in [-1, 1]

  /// Byte 0 is −1, byte 255 is 1.
  package static func value(of byte: UInt8) -> Float { Float(byte) / 127.5 - 1 }

  /// The nearest byte; values outside [-1, 1] are clamped, NaN becomes 0.
  package static func byte(of value: Float) -> UInt8 {
    let scaled = ((value + 1) * 127.5).rounded()
    return scaled > 0 ? UInt8(min(scaled, 255)) : 0
  }

  /// F×H×W×3 in [-1, 1].
  package var values: [Float] {
    let table = (UInt8.min...UInt8.max).map(Self.value(of:))
    return bytes.map { table[Int($0)] }
  }

  /// - Precondition: `values` holds F·H·W·3 numbers, meant to lie in [-1, 1].
  package init(frameCount: Int, height: Int, width: Int, values: [Float]) {
    self.init(
      frameCount: frameCount, height: height, width: width, bytes: values.map(Self.byte(of:)))
  }
}
