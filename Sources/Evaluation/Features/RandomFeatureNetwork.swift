// A fixed feature space for video without a trained network: the "random-feature Fréchet distance".
//
// Three 3-D convolutions with random weights, 3→32→64→64 channels, kernel 3, stride 2, padding 1,
// ReLU after each; the features of a clip are the mean and the standard deviation over time and
// space of each of the last 64 channels: 128 numbers. Random convolutions see color, edges and
// their change over time, but no meaning. Distances in this space order samplers of one data set;
// they are NOT the Fréchet video distance (FVD), whose features are those of a trained I3D, and
// must not be compared with published FVD values or across versions of this network.
//
// Weights are He-scaled normals of `RandomStream(seed:purpose: .featureNetwork)`, biases are zero:
// every run, rank and machine has the same network. Equal clips give equal bits on one machine.
// - Source: He et al. 2015 (1502.01852) for the scale; Naeem et al. 2020 (2002.09797) for metrics
//   in features of untrained networks.
// Letters: F frames, H height, W width, C channels, P output positions, K = 27·C patch size.

import Basics

/// Maps clips of one size to 128 features.
///
/// It keeps work memory, so one instance serves one thread.
/// - Cost: about 231 MFLOP for a clip of 17×64×64, nearly all in matrix products.
package final class RandomFeatureNetwork {
  /// Changing it changes every reported distance.
  package static let standardSeed: UInt64 = 0x5732_5356_4446_4541
  static let channelCounts = [3, 32, 64, 64]

  package let frameCount: Int
  package let height: Int
  package let width: Int
  private let layers: [StridedConvolution]

  /// - Parameter seed: chooses the network; the standard one unless a test wants another.
  package init(frameCount: Int, height: Int, width: Int, seed: UInt64 = standardSeed) {
    require(
      frameCount > 0 && height > 0 && width > 0,
      "no features of a clip of \(frameCount)×\(height)×\(width)")
    self.frameCount = frameCount
    self.height = height
    self.width = width
    var size = VolumeSize(frames: frameCount, height: height, width: width)
    var layers: [StridedConvolution] = []
    for index in 0..<(Self.channelCounts.count - 1) {
      layers.append(
        StridedConvolution(
          input: size, inputChannels: Self.channelCounts[index],
          outputChannels: Self.channelCounts[index + 1], seed: seed, layer: index))
      size = size.halved
    }
    self.layers = layers
  }

  /// Features of a clip: 64 means, then 64 standard deviations.
  package var featureCount: Int { 2 * (Self.channelCounts.last ?? 0) }

  /// The features of a clip, its pixels scaled to [−1, 1].
  package func features(of clip: PixelClip) -> [Float] {
    require(
      clip.frameCount == frameCount && clip.height == height && clip.width == width,
      "a clip of \(clip.frameCount)×\(clip.height)×\(clip.width) for a network of "
        + "\(frameCount)×\(height)×\(width)")
    return features(ofSigned: clip.pixels.map { Float($0) / 127.5 - 1 })
  }

  /// The features of F×H×W×3 values in [−1, 1], not rounded to 8 bits.
  package func features(ofSigned values: [Float]) -> [Float] {
    require(
      values.count == frameCount * height * width * 3,
      "\(values.count) values for \(frameCount)×\(height)×\(width)×3")
    let activations = layers.reduce(values) { input, layer in layer.rectifiedOutput(of: input) }
    return Self.pooled(activations, channelCount: Self.channelCounts.last ?? 0)
  }

  /// Mean and standard deviation (divided by the count) of each channel of P×C, in Float64.
  static func pooled(_ activations: [Float], channelCount: Int) -> [Float] {
    let positionCount = activations.count / channelCount
    var means = [Double](repeating: 0, count: channelCount)
    for (index, value) in activations.enumerated() { means[index % channelCount] += Double(value) }
    for channel in 0..<channelCount { means[channel] /= Double(positionCount) }
    var squares = [Double](repeating: 0, count: channelCount)
    for (index, value) in activations.enumerated() {
      let deviation = Double(value) - means[index % channelCount]
      squares[index % channelCount] += deviation * deviation
    }
    let deviations = squares.map { ($0 / Double(positionCount)).squareRoot() }
    return (means + deviations).map { Float($0) }
  }
}
