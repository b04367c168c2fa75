// The scaled frames of one video in a file. Clips are read when they are drawn, so that no process ever holds
// more of a data set than the clips it works on; what many ranks of a node read lies once in the system's cache.

import Basics
import Checkpoints
import DenseKernels
import Foundation

/// Frames F×H×W×3 of RGB bytes in a safetensors file of their own.
package struct StoredFrames: Sendable {
  package let frameCount: Int
  package let height: Int
  package let width: Int
  /// Fingerprint of what was written.
  let contentHash: String
  private let file: URL

  private static let tensorName = "frames"

  /// Takes what `file` is said to hold; `isIntact` finds out.
  init(in file: URL, frameCount: Int, height: Int, width: Int, contentHash: String) {
    self.file = file
    self.contentHash = contentHash
    self.frameCount = frameCount
    self.height = height
    self.width = width
  }

  /// Writes a video.
  /// - Throws: what writing safetensors throws.
  init(writing video: Video, to file: URL) throws {
    let shape = [video.frameCount, video.height, video.width, 3]
    let writer = try SafetensorsWriter(
      creating: file, tensors: [TensorDeclaration(Self.tensorName, .uint8, shape: shape)])
    try Buffer(video.bytes).withBytes { try writer.append(bytes: $0, to: Self.tensorName) }
    try writer.finish()
    self.init(
      in: file, frameCount: video.frameCount, height: video.height, width: video.width,
      contentHash: Fingerprint(of: video.bytes).text)
  }

  /// Reads frames.
  /// - Throws: `damagedSet` where the file is not what was written.
  package func read(_ range: Range<Int>) throws -> Video {
    require(
      range.lowerBound >= 0 && range.upperBound <= frameCount,
      "frames \(range) of a video of \(frameCount)")
    do {
      let reader = try SafetensorsReader(opening: file)
      let shape = try reader.declaration(of: Self.tensorName).shape
      guard shape == [frameCount, height, width, 3] else {
        throw damage("its frames are \(shape), not \([frameCount, height, width, 3])")
      }
      let frameSize = height * width * 3
      let bytes = Buffer<UInt8>(zeroed: range.count * frameSize)
      try reader.readExactly(
        Self.tensorName, elements: range.lowerBound * frameSize..<range.upperBound * frameSize,
        into: bytes)
      return Video(frameCount: range.count, height: height, width: width, bytes: bytes.array)
    } catch let error as CheckpointError {
      throw damage("it cannot be read", cause: error)
    }
  }

  /// Whether the file holds what was written; reads all of it, piece by piece.
  /// - Throws: as `read`.
  func isIntact() throws -> Bool {
    var fingerprint = Fingerprint()
    for first in stride(from: 0, to: frameCount, by: Self.framesOfPiece) {
      fingerprint.add(try read(first..<min(first + Self.framesOfPiece, frameCount)).bytes)
    }
    return fingerprint.text == contentHash
  }

  private static let framesOfPiece = 64

  private func damage(_ what: String, cause: (any Error)? = nil) -> VideoError {
    VideoError(
      .damagedSet,
      "\(file.path) of the prepared set is damaged: \(what); remove its folder and prepare again",
      cause: cause)
  }
}
