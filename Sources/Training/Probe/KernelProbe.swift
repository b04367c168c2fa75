// The kernels of a step at sizes like the run's, each with how many operations or bytes a run of it counts in the
// planner's twins.

import DenseKernels

package struct KernelProbe {
  typealias Kernel = (unitCount: Double, run: () -> Void)

  let sizes: ProbedSizes

  init(_ sizes: ProbedSizes) { self.sizes = sizes }

  private func filled(_ count: Int, _ value: Float = 0.3) -> Buffer<Float> {
    let buffer = Buffer<Float>(zeroed: count)
    buffer.fill(with: value)
    return buffer
  }

  /// How many operands of so many bytes a kernel goes round: a step finds most of its tensors in no cache.
  private static func copyCount(byteCount: Int) -> Int { min(max(coldByteCount / byteCount, 1), 8) }

  /// More than caches hold.
  static let coldByteCount = 48 << 20

  /// The layers of an MLP there and back: x Wᵀ, dy W, dyᵀ x, each of the two shapes.
  func products(rowCount: Int) -> Kernel {
    struct Layer {
      let x, weight, y, xGradient, weightGradient: Matrix<Float>
    }
    let (width, mlpWidth) = (sizes.width, sizes.mlpWidth)
    func layer(_ input: Int, _ output: Int) -> Layer {
      func matrix(_ rows: Int, _ columns: Int, _ value: Float) -> Matrix<Float> {
        Matrix(filled(rows * columns, value), rows: rows, columns: columns)
      }
      return Layer(
        x: matrix(rowCount, input, 0.3), weight: matrix(output, input, 0.02),
        y: matrix(rowCount, output, 0.3), xGradient: matrix(rowCount, input, 0.3),
        weightGradient: matrix(output, input, 0.3))
    }
    let elementCount: Int = 3 * rowCount * (width + mlpWidth) + 4 * width * mlpWidth
    let copyCount = Self.copyCount(byteCount: 4 * elementCount)
    let layers = (0..<copyCount).flatMap { _ in [layer(width, mlpWidth), layer(mlpWidth, width)] }
    let precision = sizes.precision
    func multiply(
      _ a: Matrix<Float>, _ b: Matrix<Float>, into c: Matrix<Float>
    ) {
      Float.multiply(a, b, scale: 1, accumulating: false, precision: precision, into: c)
    }
    let productCount: Int = copyCount * rowCount * width * mlpWidth
    return (
      unitCount: 3 * 2 * 2 * Double(productCount),
      run: {
        for layer in layers {
          multiply(layer.x, layer.weight.transposed, into: layer.y)
          multiply(layer.y, layer.weight, into: layer.xGradient)
          multiply(layer.y.transposed, layer.x, into: layer.weightGradient)
        }
      }
    )
  }

  /// x Wᵀ of a square layer.
  package static func square(rowCount: Int, width: Int) -> () -> Void {
    func matrix(_ rows: Int, _ value: Float) -> Matrix<Float> {
      let buffer = Buffer<Float>(zeroed: rows * width)
      buffer.fill(with: value)
      return Matrix(buffer, rows: rows, columns: width)
    }
    let (x, weight, y) = (matrix(rowCount, 0.3), matrix(width, 0.02), matrix(rowCount, 0))
    return {
      Float.multiply(
        x, weight.transposed, scale: 1, accumulating: false, precision: .float32, into: y)
    }
  }

  /// Heads there and back: two products and five of each.
  func attention() -> Kernel {
    let (tokenCount, headWidth) = (sizes.tokenCount, sizes.headWidth)
    let shape = AttentionShape(
      sampleCount: 1, queryCount: tokenCount, keyCount: tokenCount, headCount: 1,
      headWidth: headWidth)
    let copyCount = Self.copyCount(byteCount: 4 * 8 * tokenCount * headWidth)
    let heads = (0..<copyCount).map { _ in
      (
        inputs: (0..<4).map { _ in filled(tokenCount * headWidth) },
        outputs: (0..<4).map { _ in filled(tokenCount * headWidth) }, logSumExp: filled(tokenCount)
      )
    }
    let precision = sizes.precision
    let productCount: Int = copyCount * tokenCount * tokenCount * headWidth
    return (
      unitCount: 7 * 2 * Double(productCount),
      run: {
        for (inputs, outputs, logSumExp) in heads {
          Float.attention(
            query: inputs[0], key: inputs[1], value: inputs[2], mask: nil, shape: shape,
            precision: precision, into: outputs[0], logSumExp: logSumExp)
          Float.attentionBackward(
            outputGradient: inputs[3], query: inputs[0], key: inputs[1], value: inputs[2],
            output: outputs[0], logSumExp: logSumExp, mask: nil, shape: shape,
            precision: precision, queryGradient: GradientBuffer(outputs[1], accumulates: false),
            keyGradient: GradientBuffer(outputs[2], accumulates: false),
            valueGradient: GradientBuffer(outputs[3], accumulates: false))
        }
      }
    )
  }

  /// An activation of hidden units, a norm and a residual, there and back, as bytes of operands.
  func elementwise() -> Kernel {
    let (rowCount, width) = (sizes.rowCount, sizes.width)
    let copyCount = Self.copyCount(byteCount: 4 * 3 * rowCount * (width + sizes.mlpWidth))
    let tensors = (0..<copyCount).map { _ in
      (
        rows: (0..<3).map { _ in filled(rowCount * width) },
        hidden: (0..<3).map { _ in filled(rowCount * sizes.mlpWidth) }
      )
    }
    let vectors = (0..<3).map { _ in filled(width) }
    let statistics = (0..<2).map { _ in filled(rowCount) }
    let shape = ModulationShape(groupCount: 1, rowsPerGroup: rowCount, width: width)
    // There 2 operands of an activation and a norm, 3 of a residual; back 4 and 4.
    let operandCount: Int = copyCount * rowCount * (6 * sizes.mlpWidth + 9 * width)
    return (
      unitCount: 4 * Double(operandCount),
      run: {
        for (rows, hidden) in tensors {
          let (x, y, dx) = (rows[0], rows[1], rows[2])
          Float.apply(.geluTanh, to: hidden[0], into: hidden[1])
          Float.applyBackward(
            .geluTanh, outputGradient: hidden[1], x: hidden[0],
            inputGradient: GradientBuffer(hidden[2], accumulates: true))
          Float.modulatedLayerNorm(
            x, scale: vectors[0], shift: vectors[1], scaleOffset: 1, epsilon: 1e-6, shape: shape,
            into: y, mean: statistics[0], inverseDeviation: statistics[1])
          Float.modulatedLayerNormBackward(
            outputGradient: y, x: x, scale: vectors[0], scaleOffset: 1, shape: shape,
            mean: statistics[0], inverseDeviation: statistics[1],
            inputGradient: GradientBuffer(dx, accumulates: true), scaleGradient: vectors[2],
            shiftGradient: nil)
          Float.gatedResidual(x, gate: vectors[0], h: y, shape: shape, into: dx)
        }
      }
    )
  }

  /// A sum over arrays that no cache holds: an optimizer's bytes are of that kind.
  func optimizer() -> Kernel {
    let count = 1 << 23
    let (x, y) = (filled(count), filled(count))
    return (unitCount: Double(12 * count), run: { Float.add(1e-9, x, to: y) })
  }
}
