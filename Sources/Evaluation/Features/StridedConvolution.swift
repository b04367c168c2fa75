// One layer of the feature network: 3×3×3 convolution, stride 2, zero padding 1, then ReLU, as a
// matrix product of patches with weights. Activations are channels-last, F×H×W×C, so that a row of
// a patch (3 neighbors in x, all channels) is contiguous and is copied as one piece.

import Basics
import DenseKernels

/// Extent of an activation without its channels.
struct VolumeSize: Hashable {
  var frames: Int
  var height: Int
  var width: Int

  var positionCount: Int { frames * height * width }
  /// The extent after kernel 3, stride 2, padding 1.
  var halved: Self {
    Self(frames: (frames + 1) / 2, height: (height + 1) / 2, width: (width + 1) / 2)
  }
  /// The extent with one zero on every side.
  var padded: Self { Self(frames: frames + 2, height: height + 2, width: width + 2) }
}

struct StridedConvolution {
  static let kernel = 3
  static let stride = 2

  let input: VolumeSize
  let output: VolumeSize
  let inputChannels: Int
  let outputChannels: Int
  /// K × C of the output, rows in the order frame, y, x, channel of the patch.
  let weights: [Float]
  private let weightMatrix: Matrix<Float>
  private let paddedInput: Buffer<Float>
  private let patches: Buffer<Float>
  private let products: Buffer<Float>

  /// A layer with weights N(0, 2/K) of the stream of (`seed`, `layer`).
  init(
    input: VolumeSize, inputChannels: Int, outputChannels: Int, seed: UInt64, layer: Int
  ) {
    let patchSize = Self.kernel * Self.kernel * Self.kernel * inputChannels
    let scale = Float((2 / Double(patchSize)).squareRoot())
    let stream = RandomStream(seed: seed, purpose: .featureNetwork, sample: layer)
    self.input = input
    self.output = input.halved
    self.inputChannels = inputChannels
    self.outputChannels = outputChannels
    weights = stream.normals(count: patchSize * outputChannels).map { $0 * scale }
    weightMatrix = Matrix(Buffer(weights), rows: patchSize, columns: outputChannels)
    paddedInput = Buffer(zeroed: input.padded.positionCount * inputChannels)
    patches = Buffer(zeroed: output.positionCount * patchSize)
    products = Buffer(zeroed: output.positionCount * outputChannels)
  }

  /// max(0, convolution): F×H×W×C in, halved extent × output channels out.
  func rectifiedOutput(of values: [Float]) -> [Float] {
    require(
      values.count == input.positionCount * inputChannels,
      "\(values.count) values for \(input) of \(inputChannels) channels")
    pad(values)
    gatherPatches()
    Float.multiply(
      Matrix(patches, rows: output.positionCount, columns: weightMatrix.rowCount), weightMatrix,
      scale: 1, accumulating: false,
      into: Matrix(products, rows: output.positionCount, columns: outputChannels))
    return products.array.map { max($0, 0) }
  }

  /// Writes the values into the middle of the padded volume; its border stays zero.
  private func pad(_ values: [Float]) {
    let rowLength = input.width * inputChannels
    let source = Buffer(values)
    for frame in 0..<input.frames {
      let start = ((frame + 1) * input.padded.height + 1) * input.padded.width + 1
      let slice = frame * input.height * rowLength
      Float.copyRows(
        source[slice..<(slice + input.height * rowLength)], stride: rowLength,
        to: paddedInput[(start * inputChannels)..<paddedInput.count],
        stride: input.padded.width * inputChannels, rowCount: input.height, width: rowLength)
    }
  }

  /// patches[P × K]: for each output row of positions and each (frame, y) of the kernel, strided
  /// copies of pieces of 3 · C values.
  private func gatherPatches() {
    let pieceLength = Self.kernel * inputChannels
    let patchSize = Self.kernel * Self.kernel * pieceLength
    for frame in 0..<output.frames {
      for y in 0..<output.height {
        let firstPosition = (frame * output.height + y) * output.width
        for kernelRow in 0..<(Self.kernel * Self.kernel) {
          let sourceFrame = Self.stride * frame + kernelRow / Self.kernel
          let sourceY = Self.stride * y + kernelRow % Self.kernel
          let source =
            (sourceFrame * input.padded.height + sourceY) * input.padded.width * inputChannels
          let target = firstPosition * patchSize + kernelRow * pieceLength
          // The pieces of neighboring positions overlap by one neighbor, which travels apart:
          // `copyRows` takes rows that do not.
          for (start, width) in [(0, Self.stride), (Self.stride, Self.kernel - Self.stride)] {
            Float.copyRows(
              paddedInput[(source + start * inputChannels)..<paddedInput.count],
              stride: Self.stride * inputChannels,
              to: patches[(target + start * inputChannels)..<patches.count], stride: patchSize,
              rowCount: output.width, width: width * inputChannels)
          }
        }
      }
    }
  }
}
