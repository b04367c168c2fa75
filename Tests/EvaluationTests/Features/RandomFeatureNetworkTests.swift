import TestSupport
import Testing

@testable import Evaluation

/// A convolution by its definition, in Float64: kernel 3, stride 2, zeros outside, then ReLU.
private func slowConvolution(_ layer: StridedConvolution, _ values: [Float]) -> [Double] {
  let (size, output) = (layer.input, layer.output)
  var result: [Double] = []
  for f in 0..<output.frames {
    for y in 0..<output.height {
      for x in 0..<output.width {
        for channel in 0..<layer.outputChannels {
          var sum = 0.0
          var row = 0
          for kf in 0..<3 {
            for ky in 0..<3 {
              for kx in 0..<3 {
                let (sf, sy, sx) = (2 * f + kf - 1, 2 * y + ky - 1, 2 * x + kx - 1)
                for source in 0..<layer.inputChannels {
                  if (0..<size.frames).contains(sf), (0..<size.height).contains(sy),
                    (0..<size.width).contains(sx)
                  {
                    let position = (sf * size.height + sy) * size.width + sx
                    sum +=
                      Double(values[position * layer.inputChannels + source])
                      * Double(layer.weights[row * layer.outputChannels + channel])
                  }
                  row += 1
                }
              }
            }
          }
          result.append(max(sum, 0))
        }
      }
    }
  }
  return result
}

private func clip(_ seed: Int, frameCount: Int = 9, height: Int = 16, width: Int = 12) -> PixelClip
{
  let count = frameCount * height * width * 3
  return PixelClip(
    pixels: (0..<count).map { (index: Int) -> UInt8 in
      UInt8((index * index * seed + 31 * index) % 256)
    }, frameCount: frameCount, height: height, width: width)
}

@Suite struct RandomFeatureNetworkTests {
  @Test(arguments: [(1, 1, 1), (2, 3, 4), (5, 6, 7), (4, 1, 3)])
  func `a layer is the convolution by its definition`(frames: Int, height: Int, width: Int) {
    let size = VolumeSize(frames: frames, height: height, width: width)
    for channels in [(3, 8), (5, 2)] {
      let layer = StridedConvolution(
        input: size, inputChannels: channels.0, outputChannels: channels.1, seed: 3, layer: 1)
      for sign: Float in [1, -1] {
        let values = (0..<(size.positionCount * channels.0)).map { (index: Int) -> Float in
          sign * (Float((index * 37) % 101) / 50 - 1)
        }
        let expected = slowConvolution(layer, values)
        // At most 135 products of size about 1, summed in fp32.
        #expect(
          difference(
            layer.rectifiedOutput(of: values).map { Double($0) }, expected, absolute: 2e-5) == nil)
        #expect(size.positionCount == 1 || expected.contains { $0 > 0 })
      }
    }
  }

  @Test func `pools are the mean and the population deviation of each channel`() {
    let pools = RandomFeatureNetwork.pooled([1, 10, 3, 10, 5, 10, 7, 14], channelCount: 2)
    #expect(pools == [4, 11, Float(5.0.squareRoot()), Float(3.0.squareRoot())])
  }

  @Test func `equal clips have equal features, whatever was looked at before`() {
    let network = RandomFeatureNetwork(frameCount: 9, height: 16, width: 12)
    let first = network.features(of: clip(5))
    let other = network.features(of: clip(7))
    #expect(network.features(of: clip(5)) == first)
    #expect(
      RandomFeatureNetwork(frameCount: 9, height: 16, width: 12).features(of: clip(5)) == first)
    #expect(other != first)
    #expect(first.count == 128 && network.featureCount == 128)
  }

  @Test func `another seed is another network`() {
    let a = RandomFeatureNetwork(frameCount: 9, height: 16, width: 12)
    let b = RandomFeatureNetwork(frameCount: 9, height: 16, width: 12, seed: 1)
    #expect(a.features(of: clip(5)) != b.features(of: clip(5)))
  }

  @Test func `the standard network stays the one that was published`() {
    let network = RandomFeatureNetwork(frameCount: 9, height: 16, width: 12)
    let features = network.features(of: clip(5)).map { Double($0) }
    // Means of the 64 means and of the 64 deviations; the bound leaves room for the order of sums.
    let means: Double = features.prefix(64).reduce(0, +) / 64
    let deviations: Double = features.suffix(64).reduce(0, +) / 64
    let expected = [0.13782772900594864, 0.16133233736036345]
    #expect(difference([means, deviations], expected, absolute: 0, relative: 1e-4) == nil)
  }

  @Test func `the features see the order of frames`() {
    let forward = clip(5)
    let reversed = PixelClip(
      pixels: (0..<9).reversed().flatMap { frame in
        forward.pixels[(frame * forward.frameValueCount)..<((frame + 1) * forward.frameValueCount)]
      }, frameCount: 9, height: 16, width: 12)
    let network = RandomFeatureNetwork(frameCount: 9, height: 16, width: 12)
    #expect(network.features(of: forward) != network.features(of: reversed))
  }

  @Test func `pixels are scaled to -1 and 1`() {
    let network = RandomFeatureNetwork(frameCount: 1, height: 2, width: 2)
    let pixels = PixelClip(
      pixels: [0, 255, 0, 255, 255, 0, 0, 0, 255, 255, 0, 255], frameCount: 1, height: 2, width: 2)
    let signed: [Float] = [-1, 1, -1, 1, 1, -1, -1, -1, 1, 1, -1, 1]
    #expect(network.features(of: pixels) == network.features(ofSigned: signed))
    #expect(PixelClip(signed: signed, frameCount: 1, height: 2, width: 2) == pixels)
  }
}
