// 3-D convolution, forward only: columns of input patches, then one product per strip of output.
//
// The columns of at most 4 MiB exist at a time. Letters: B samples, C input and O output channels,
// axes time, height, width.

import CKernels

/// Sizes of a 3-D convolution; arrays of three are time, height, width.
package struct ConvolutionShape: Hashable, Sendable {
  package let sampleCount: Int
  package let inputChannelCount: Int
  package let outputChannelCount: Int
  package let inputSize: [Int]
  package let kernelSize: [Int]
  package let stride: [Int]
  /// Zeros before and after each axis.
  package let padding: [Int]

  package init(
    sampleCount: Int, inputChannelCount: Int, outputChannelCount: Int, inputSize: [Int],
    kernelSize: [Int], stride: [Int] = [1, 1, 1], padding: [Int] = [0, 0, 0]
  ) {
    for (name, sizes) in [
      ("input", inputSize), ("kernel", kernelSize), ("stride", stride), ("padding", padding),
    ] {
      precondition(sizes.count == 3, "\(name) \(sizes) is not time, height, width")
    }
    for axis in 0..<3 {
      precondition(
        stride[axis] > 0 && padding[axis] >= 0 && kernelSize[axis] > 0
          && inputSize[axis] + 2 * padding[axis] >= kernelSize[axis],
        "kernel \(kernelSize) does not fit input \(inputSize) with padding \(padding)")
    }
    self.sampleCount = sampleCount
    self.inputChannelCount = inputChannelCount
    self.outputChannelCount = outputChannelCount
    self.inputSize = inputSize
    self.kernelSize = kernelSize
    self.stride = stride
    self.padding = padding
  }

  package var outputSize: [Int] {
    (0..<3).map { (inputSize[$0] + 2 * padding[$0] - kernelSize[$0]) / stride[$0] + 1 }
  }
}

package enum Convolution {
  private static let columnElementCount = 1 << 20

  /// y[b, o, p] = bias[o] + Σ weight[o, c, kernel] x[b, c, p · stride + kernel − padding].
  ///
  /// - Shapes: x [B, C, T, H, W], weight [O, C, kt, kh, kw], bias [O] or nil → y [B, O, T′, H′, W′].
  package static func forward(
    _ x: Buffer<Float>, weight: Buffer<Float>, bias: Buffer<Float>?, shape: ConvolutionShape,
    into y: Buffer<Float>
  ) {
    let output = shape.outputSize
    let patchCount = shape.inputChannelCount * shape.kernelSize.reduce(1, *)
    let inputCount = shape.inputChannelCount * shape.inputSize.reduce(1, *)
    let positionCount = output.reduce(1, *)
    requireCount(x.count, shape.sampleCount * inputCount, "x")
    requireCount(weight.count, shape.outputChannelCount * patchCount, "weight")
    requireCount(y.count, shape.sampleCount * shape.outputChannelCount * positionCount, "y")
    if let bias { requireCount(bias.count, shape.outputChannelCount, "bias") }

    var sizes = unfolding(of: shape)
    let lineCount = output[0] * output[1]
    let stripCount = max(1, min(lineCount, columnElementCount / (patchCount * output[2])))
    let columns = Buffer<Float>(zeroed: patchCount * stripCount * output[2])
    for b in 0..<shape.sampleCount {
      let sampleCount = shape.outputChannelCount * positionCount
      let target = y[(b * sampleCount)..<((b + 1) * sampleCount)]
      for o in 0..<shape.outputChannelCount {
        target[(o * positionCount)..<((o + 1) * positionCount)].fill(with: bias?[o] ?? 0)
      }
      for first in Swift.stride(from: 0, to: lineCount, by: stripCount) {
        let lines = min(stripCount, lineCount - first)
        let width = lines * output[2]
        unsafe w2svd_unfold(x.base + b * inputCount, &sizes, first, lines, columns.base)
        Float.multiply(
          Matrix(weight, rows: shape.outputChannelCount, columns: patchCount),
          Matrix(columns, rows: patchCount, columns: width), scale: 1, accumulating: true,
          into: Matrix(
            target[(first * output[2])..<target.count], rows: shape.outputChannelCount,
            columns: width, stride: positionCount))
      }
    }
  }

  private static func unfolding(of shape: ConvolutionShape) -> w2svd_unfolding {
    func triple(_ sizes: [Int]) -> (Int, Int, Int) { (sizes[0], sizes[1], sizes[2]) }
    return w2svd_unfolding(
      channels: shape.inputChannelCount, size: triple(shape.inputSize),
      kernel: triple(shape.kernelSize), stride: triple(shape.stride),
      padding: triple(shape.padding), output_height: shape.outputSize[1],
      output_width: shape.outputSize[2])
  }
}
