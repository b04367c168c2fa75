// Between clips and latents. The linear codec of this module conforms now, a learned video VAE later.

import Basics

/// Latents of one clip, C×F×H×W row-major.
package struct Latents: Hashable, Sendable {
  package let channelCount: Int
  package let frameCount: Int
  package let height: Int
  package let width: Int
  package let values: [Float]

  /// - Precondition: `values` holds C·F·H·W numbers.
  package init(channelCount: Int, frameCount: Int, height: Int, width: Int, values: [Float]) {
    require(
      values.count == channelCount * frameCount * height * width,
      "\(values.count) values for latents of \(channelCount)×\(frameCount)×\(height)×\(width)")
    self.channelCount = channelCount
    self.frameCount = frameCount
    self.height = height
    self.width = width
    self.values = values
  }

  package var shape: [Int] { [channelCount, frameCount, height, width] }
}

/// Encodes clips of 1 + n · temporalStride frames to 1 + n latent frames, causally: latent frame f
/// depends on no video frame after f · temporalStride.
package protocol LatentCodec: Sendable {
  var channelCount: Int { get }
  /// Video frames of a latent frame, after the first one.
  var temporalStride: Int { get }
  /// Pixels of a latent element in height and in width.
  var spatialStride: Int { get }

  /// - Shapes: (1+nT)×(hS)×(wS)×3 bytes → C×(1+n)×h×w. Components have about unit variance.
  func encode(_ clip: Video) -> Latents
  /// - Shapes: C×(1+n)×h×w → (1+nT)×(hS)×(wS)×3 in [-1, 1], not clamped.
  func decodeValues(_ latents: Latents) -> [Float]
}

extension LatentCodec {
  /// C, F, H, W of the latents of such a clip.
  /// - Precondition: 1 + n · temporalStride frames, sides multiples of `spatialStride`.
  package func latentShape(frameCount: Int, height: Int, width: Int) -> [Int] {
    require(
      frameCount >= 1 && (frameCount - 1) % temporalStride == 0,
      "a clip of \(frameCount) frames is not 1 + a multiple of \(temporalStride)")
    require(
      height % spatialStride == 0 && width % spatialStride == 0,
      "frames of \(height)×\(width) are not multiples of \(spatialStride)")
    return [
      channelCount, 1 + (frameCount - 1) / temporalStride, height / spatialStride,
      width / spatialStride,
    ]
  }

  /// The clip that latents stand for, as bytes.
  package func decode(_ latents: Latents) -> Video {
    Video(
      frameCount: 1 + (latents.frameCount - 1) * temporalStride,
      height: latents.height * spatialStride, width: latents.width * spatialStride,
      values: decodeValues(latents))
  }

  /// PSNR in dB of decode(encode(clip)) over all clips together; nil for none.
  package func reconstructionPSNR(of clips: [Video]) -> Double? {
    guard !clips.isEmpty else { return nil }
    let errors = clips.map { meanSquaredError(decode(encode($0)), $0) * Double($0.bytes.count) }
    let byteCount = clips.reduce(0) { $0 + $1.bytes.count }
    return peakSignalToNoise(meanSquaredError: errors.reduce(0, +) / Double(byteCount))
  }
}
