import DenseKernels
import TestSupport
import Testing

struct ConvolutionTests {
  static let shapes = [
    ConvolutionShape(
      sampleCount: 1, inputChannelCount: 1, outputChannelCount: 1, inputSize: [1, 1, 1],
      kernelSize: [1, 1, 1]),
    ConvolutionShape(
      sampleCount: 2, inputChannelCount: 3, outputChannelCount: 5, inputSize: [4, 7, 6],
      kernelSize: [3, 3, 2], padding: [1, 1, 1]),
    ConvolutionShape(
      sampleCount: 1, inputChannelCount: 2, outputChannelCount: 4, inputSize: [5, 8, 9],
      kernelSize: [1, 2, 3], stride: [2, 2, 3], padding: [0, 1, 2]),
    // More columns than one strip holds: 8·27 × 9·71·72 is above 2^20.
    ConvolutionShape(
      sampleCount: 1, inputChannelCount: 8, outputChannelCount: 2, inputSize: [3, 71, 72],
      kernelSize: [3, 3, 3], padding: [1, 1, 1]),
  ]

  @Test(arguments: shapes)
  func `convolution agrees with its definition`(shape: ConvolutionShape) {
    let (i, k, o) = (shape.inputSize, shape.kernelSize, shape.outputSize)
    let (channels, outputs) = (shape.inputChannelCount, shape.outputChannelCount)
    let x: Buffer<Float> = normals(shape.sampleCount * channels * i.reduce(1, *), 1)
    let weight: Buffer<Float> = normals(outputs * channels * k.reduce(1, *), 2)
    let bias: Buffer<Float> = normals(outputs, 3)
    let y: Buffer<Float> = poisoned(shape.sampleCount * outputs * o.reduce(1, *))
    Convolution.forward(x, weight: weight, bias: bias, shape: shape, into: y)

    var expected: [Double] = []
    for b in 0..<shape.sampleCount {
      for out in 0..<outputs {
        for t in 0..<o[0] {
          for h in 0..<o[1] {
            for w in 0..<o[2] {
              var sum = Double(bias[out])
              for c in 0..<channels {
                for a in 0..<k[0] {
                  for d in 0..<k[1] {
                    for e in 0..<k[2] {
                      let p = [
                        t * shape.stride[0] + a - shape.padding[0],
                        h * shape.stride[1] + d - shape.padding[1],
                        w * shape.stride[2] + e - shape.padding[2],
                      ]
                      guard (0..<3).allSatisfy({ p[$0] >= 0 && p[$0] < i[$0] }) else { continue }
                      let source = (((b * channels + c) * i[0] + p[0]) * i[1] + p[1]) * i[2] + p[2]
                      let factor = (((out * channels + c) * k[0] + a) * k[1] + d) * k[2] + e
                      sum += Double(x[source]) * Double(weight[factor])
                    }
                  }
                }
              }
              expected.append(sum)
            }
          }
        }
      }
    }
    // A sum of as many products of normals as a patch has elements.
    let terms = Double(channels * k.reduce(1, *) + 1)
    #expect(
      difference(y.array.map(Double.init), expected, absolute: terms * 8 * epsilon) == nil)
  }
}
