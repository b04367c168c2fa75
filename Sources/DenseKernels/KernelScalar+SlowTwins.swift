// The slow twins: what every kernel computes, as plain loops with the formula beside them.
//
// A scalar type that implements nothing runs these; `Double` does so and is the truth in tests.
// They are written to be read, every access is checked, and sums run in index order.

import Foundation

extension KernelScalar {
  // MARK: Products

  package static func multiply(
    _ a: Matrix<Self>, _ b: Matrix<Self>, scale: Self, accumulating: Bool,
    precision: ProductPrecision, choice _: KernelChoice, into c: Matrix<Self>
  ) {
    let (rows, inner, columns) = productSizes(a, b, c)
    for i in 0..<rows {
      for j in 0..<columns {
        // c[i, j] = scale Σ_k a[i, k] b[k, j]
        var sum: Self = 0
        for k in 0..<inner { sum += precision.rounded(a[i, k]) * precision.rounded(b[k, j]) }
        let index = i * c.stride + j
        c.buffer[index] = accumulating ? c.buffer[index] + scale * sum : scale * sum
      }
    }
  }

  package static func multiply(
    sumOf terms: [(a: Matrix<Self>, b: Matrix<Self>)], packed _: PackedOperand?,
    addingToRows bias: Buffer<Self>?, precision: ProductPrecision, choice: KernelChoice,
    into c: Matrix<Self>
  ) {
    multiplyInTurn(terms, addingToRows: bias, precision: precision, choice: choice, into: c)
  }

  package static func multiply(
    slices: [[(a: Matrix<Self>, b: Matrix<Self>)]], packed _: PackedOperand?, scale: Self,
    addingToRows bias: Buffer<Self>?, precision: ProductPrecision, into c: Matrix<Self>
  ) {
    multiplyInTurn(
      slices: slices[...], scale: scale, addingToRows: bias, precision: precision, into: c)
  }

  package static func packed(
    _: Matrix<Self>, precision _: ProductPrecision, allocate _: (_ count: Int) -> Buffer<UInt32>
  ) -> PackedOperand? { nil }

  /// One product after the other, then the bias.
  static func multiplyInTurn(
    _ terms: [(a: Matrix<Self>, b: Matrix<Self>)], addingToRows bias: Buffer<Self>?,
    precision: ProductPrecision, choice: KernelChoice, into c: Matrix<Self>
  ) {
    for (index, term) in terms.enumerated() {
      multiply(
        term.a, term.b, scale: 1, accumulating: index > 0, precision: precision, choice: choice,
        into: c)
    }
    guard let bias else { return }
    requireCount(bias.count, c.columnCount, "bias")
    let stride = max(c.stride, c.columnCount)
    for row in 0..<c.rowCount {
      add(1, bias, to: c.buffer[(row * stride)..<(row * stride + bias.count)])
    }
  }

  /// One half of the slices, the other, and their sum.
  static func multiplyInTurn(
    slices: ArraySlice<[(a: Matrix<Self>, b: Matrix<Self>)]>, scale: Self,
    addingToRows bias: Buffer<Self>? = nil, precision: ProductPrecision, into c: Matrix<Self>
  ) {
    if slices.count == 1, let terms = slices.first {
      for (index, term) in terms.enumerated() {
        multiply(
          term.a, term.b, scale: scale, accumulating: index > 0, precision: precision,
          choice: .sameForParts, into: c)
      }
    } else {
      precondition(slices.count > 0 && slices.count % 2 == 0, "a tree of \(slices.count) slices")
      let middle = slices.startIndex + slices.count / 2
      let right = Matrix(
        Buffer<Self>(zeroed: c.rowCount * c.columnCount), rows: c.rowCount, columns: c.columnCount)
      multiplyInTurn(slices: slices[..<middle], scale: scale, precision: precision, into: c)
      multiplyInTurn(slices: slices[middle...], scale: scale, precision: precision, into: right)
      for row in 0..<c.rowCount {
        let start = row * right.stride
        add(1, right.buffer[start..<start + c.columnCount], to: c.row(row))
      }
    }
    if let bias { for row in 0..<c.rowCount { add(1, bias, to: c.row(row)) } }
  }

  package static func addBias(_ bias: Buffer<Self>, toRowsOf x: Buffer<Self>, rowCount: Int) {
    requireCount(x.count, rowCount * bias.count, "x")
    for r in 0..<rowCount {
      for i in 0..<bias.count { x[r * bias.count + i] += bias[i] }
    }
  }

  package static func addColumnSums(of x: Buffer<Self>, rowCount: Int, to sums: Buffer<Self>) {
    requireCount(x.count, rowCount * sums.count, "x")
    for i in 0..<sums.count {
      for r in 0..<rowCount { sums[i] += x[r * sums.count + i] }
    }
  }

  // MARK: Elementwise

  package static func apply(
    _ activation: Activation, to x: Buffer<Self>, into y: Buffer<Self>
  ) {
    requireCount(y.count, x.count, "y")
    for i in 0..<x.count { y[i] = Self(activation.value(at: Double(x[i]))) }
  }

  package static func applyBackward(
    _ activation: Activation, outputGradient: Buffer<Self>, x: Buffer<Self>,
    inputGradient: GradientBuffer<Self>
  ) {
    requireCount(outputGradient.count, x.count, "outputGradient")
    requireCount(inputGradient.count, x.count, "inputGradient")
    let inputGradient = inputGradient.addend
    for i in 0..<x.count {
      inputGradient[i] += Self(activation.derivative(at: Double(x[i]))) * outputGradient[i]
    }
  }

  package static func gatedResidual(
    _ x: Buffer<Self>, gate: Buffer<Self>, h: Buffer<Self>, shape: ModulationShape,
    into y: Buffer<Self>
  ) {
    shape.require(rows: [("x", x), ("h", h), ("y", y)], groups: [("gate", gate)])
    for i in 0..<x.count { y[i] = x[i] + gate[shape.groupElement(of: i)] * h[i] }
  }

  package static func gatedResidualBackward(
    outputGradient: Buffer<Self>, gate: Buffer<Self>, h: Buffer<Self>, shape: ModulationShape,
    hGradient: GradientBuffer<Self>?, gateGradient: Buffer<Self>?
  ) {
    shape.require(
      rows: [("outputGradient", outputGradient), ("h", h), ("hGradient", hGradient?.buffer)],
      groups: [("gate", gate), ("gateGradient", gateGradient)])
    let hGradient = hGradient?.addend
    for i in 0..<h.count {
      let j = shape.groupElement(of: i)
      if let hGradient { hGradient[i] += gate[j] * outputGradient[i] }
      if let gateGradient { gateGradient[j] += h[i] * outputGradient[i] }
    }
  }

  package static func combine(
    _ a: Self, _ x: Buffer<Self>, _ b: Self, _ y: Buffer<Self>, into z: Buffer<Self>
  ) {
    requireCount(x.count, z.count, "x")
    requireCount(y.count, z.count, "y")
    for i in 0..<z.count { z[i] = a * x[i] + b * y[i] }
  }

  package static func add(_ a: Self, _ x: Buffer<Self>, to y: Buffer<Self>) {
    requireCount(x.count, y.count, "x")
    for i in 0..<y.count { y[i] += a * x[i] }
  }

  package static func multiplyElements(
    _ x: Buffer<Self>, _ y: Buffer<Self>, into z: Buffer<Self>
  ) {
    requireCount(x.count, z.count, "x")
    requireCount(y.count, z.count, "y")
    for i in 0..<z.count { z[i] = x[i] * y[i] }
  }

  package static func addProduct(_ x: Buffer<Self>, _ y: Buffer<Self>, to z: Buffer<Self>) {
    requireCount(x.count, z.count, "x")
    requireCount(y.count, z.count, "y")
    for i in 0..<z.count { z[i] += x[i] * y[i] }
  }

  // MARK: Float64

  package static func doubles(of x: Buffer<Self>) -> [Double] {
    (0..<x.count).map { Double(x[$0]) }
  }

  package static func copy(_ elements: [Float], into y: Buffer<Self>) {
    requireCount(elements.count, y.count, "elements")
    for i in 0..<y.count { y[i] = Self(elements[i]) }
  }

  package static func round(_ elements: [Double], into y: Buffer<Self>) {
    requireCount(elements.count, y.count, "elements")
    for i in 0..<y.count { y[i] = Self(elements[i]) }
  }

  // MARK: Reductions

  package static func sum(_ x: Buffer<Self>) -> Double {
    var total = 0.0
    for i in 0..<x.count { total += Double(x[i]) }
    return total
  }

  package static func sumOfMagnitudes(_ x: Buffer<Self>) -> Double {
    var total = 0.0
    for i in 0..<x.count { total += abs(Double(x[i])) }
    return total
  }

  package static func dot(_ x: Buffer<Self>, _ y: Buffer<Self>) -> Double {
    requireCount(x.count, y.count, "x")
    var total = 0.0
    for i in 0..<x.count { total += Double(x[i]) * Double(y[i]) }
    return total
  }

  // MARK: Moving

  package static func copyRows(
    _ source: Buffer<Self>, stride sourceStride: Int, to target: Buffer<Self>,
    stride targetStride: Int, rowCount: Int, width: Int
  ) {
    requireRows(rowCount, width, source.count, sourceStride, "source")
    requireRows(rowCount, width, target.count, targetStride, "target")
    for r in 0..<rowCount {
      for i in 0..<width { target[r * targetStride + i] = source[r * sourceStride + i] }
    }
  }

  package static func addRows(
    _ source: Buffer<Self>, stride sourceStride: Int, to target: Buffer<Self>,
    stride targetStride: Int, rowCount: Int, width: Int
  ) {
    requireRows(rowCount, width, source.count, sourceStride, "source")
    requireRows(rowCount, width, target.count, targetStride, "target")
    for r in 0..<rowCount {
      for i in 0..<width { target[r * targetStride + i] += source[r * sourceStride + i] }
    }
  }

  package static func permute(
    _ x: Buffer<Self>, shape: [Int], axes: [Int], into y: Buffer<Self>
  ) {
    requirePermutation(x.count, y.count, shape: shape, axes: axes)
    // Strides of x, in the order in which y walks its dimensions.
    var strides = [Int](repeating: 1, count: shape.count)
    for d in shape.indices.dropLast().reversed() { strides[d] = strides[d + 1] * shape[d + 1] }
    for target in 0..<y.count {
      var rest = target
      var source = 0
      for axis in axes.reversed() {
        source += (rest % shape[axis]) * strides[axis]
        rest /= shape[axis]
      }
      y[target] = x[source]
    }
  }
}

extension Matrix {
  /// The element of the logical (perhaps transposed) matrix.
  fileprivate subscript(row: Int, column: Int) -> Element {
    isTransposed ? buffer[column * stride + row] : buffer[row * stride + column]
  }
}

extension Activation {
  /// The function, in Float64.
  package func value(at x: Double) -> Double {
    switch self {
    case .geluTanh: 0.5 * x * (1 + tanh(Self.geluArgument(x)))
    case .silu: x / (1 + exp(-x))
    case .softplus: max(x, 0) + log1p(exp(-abs(x)))
    // √(x² + c²) − c without cancellation.
    case .pseudoHuber(let c): x * x / ((x * x + c * c).squareRoot() + c)
    }
  }

  /// Its derivative, in Float64.
  package func derivative(at x: Double) -> Double {
    switch self {
    case .geluTanh:
      let t = tanh(Self.geluArgument(x))
      let slope = (2 / Double.pi).squareRoot() * (1 + 3 * 0.044715 * x * x)
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope
    case .silu:
      let sigmoid = 1 / (1 + exp(-x))
      return sigmoid * (1 + x * (1 - sigmoid))
    case .softplus: return 1 / (1 + exp(-x))
    case .pseudoHuber(let c): return x / (x * x + c * c).squareRoot()
    }
  }

  private static func geluArgument(_ x: Double) -> Double {
    (2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)
  }
}

extension Matrix {
  /// One of its rows, of a matrix that is read as it lies.
  fileprivate func row(_ index: Int) -> Buffer<Element> {
    buffer[index * stride..<index * stride + columnCount]
  }
}
