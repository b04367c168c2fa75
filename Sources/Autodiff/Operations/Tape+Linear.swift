// Linear layers, with and without a low-rank update.

package import DenseKernels
import Tensors

/// A LoRA branch of a linear layer: y += scale · (x Aᵀ) Bᵀ. Never merged into the weight.
/// - Source: LoRA (2106.09685), eq. 3; the scale is (a/r) times the role's weight.
package struct LowRankUpdate<Scalar: KernelScalar> {
  /// A: r × K.
  package let down: Parameter<Scalar>
  /// B: D × r.
  package let up: Parameter<Scalar>
  package let scale: Double

  package init(down: Parameter<Scalar>, up: Parameter<Scalar>, scale: Double) {
    self.down = down
    self.up = up
    self.scale = scale
  }
}

/// The inputs of a linear layer as its way back finds them.
struct KeptInputs<Scalar: KernelScalar> {
  let widths: [Int]
  private let rowCount: Int
  private let inputs: [(elements: Tensor<Scalar>?, remaking: Remaking<Scalar>?)]

  init(_ parts: [Value<Scalar>], rowCount: Int, widths: [Int]) {
    self.widths = widths
    self.rowCount = rowCount
    inputs = parts.map { $0.remaking == nil ? ($0.tensor, nil) : (nil, $0.remaking) }
  }

  var matrices: [Matrix<Scalar>] {
    zip(inputs, widths).compactMap { input, width in
      (input.elements ?? input.remaking?.tensor).map {
        Matrix($0.buffer, rows: rowCount, columns: width)
      }
    }
  }
}

extension Tape {
  /// y = x Wᵀ + bias + scale · (x Aᵀ) Bᵀ.
  /// - Shapes: x […, K], weight [D, K] (further weight dimensions count as K), bias [D] → […, D].
  package func linear(
    _ x: Value<Scalar>, weight: Parameter<Scalar>, bias: Parameter<Scalar>? = nil,
    update: LowRankUpdate<Scalar>? = nil, sums: RowSums = .whole
  ) -> Value<Scalar> {
    linear(parts: [x], weight: weight, bias: bias, update: update, sums: sums)
  }

  /// The linear layer of inputs joined along their last dimension, which are never joined in memory:
  /// y = Σ_p x_p W_pᵀ + bias + scale · (Σ_p x_p A_pᵀ) Bᵀ.
  /// - Shapes: x_p […, K_p] with Σ K_p = K, weight [D, K], bias [D] → […, D].
  /// - Parameter sums: gradients of the parameters.
  package func linear(
    parts: [Value<Scalar>], weight: Parameter<Scalar>, bias: Parameter<Scalar>? = nil,
    update: LowRankUpdate<Scalar>? = nil, sums: RowSums = .whole
  ) -> Value<Scalar> {
    // Of the value: a pass may compute with a part of the weight.
    let outputWidth = weight.value.shape[0]
    let inputWidth = weight.value.count / outputWidth
    let widths = parts.map { $0.shape.last ?? 1 }
    let leading = parts[0].shape.dropLast()
    precondition(
      widths.reduce(0, +) == inputWidth && parts.allSatisfy { $0.shape.dropLast() == leading },
      "\(weight.name) takes width \(inputWidth), the input is \(parts.map(\.shape))")
    let rowCount = leading.reduce(1, *)
    let kept = KeptInputs(parts, rowCount: rowCount, widths: widths)
    let inputs = zip(parts, widths).map { part, width in
      Matrix(part.tensor.buffer, rows: rowCount, columns: width)
    }
    let output = result(leading + [outputWidth])
    let y = Matrix(output.buffer, rows: rowCount, columns: outputWidth)
    var terms = terms(inputs, columns(of: weight.value, rows: outputWidth, widths))
    func used(_ parameter: Parameter<Scalar>) -> Value<Scalar> {
      self.weight(parameter, isCounted: sums.isCounted)
    }
    let values = parts + [used(weight)] + (bias.map { [used($0)] } ?? [])
    let (weightPlace, biasPlace) = (parts.count, bias.map { _ in parts.count + 1 })
    let collected = parts[0].columns
    precondition(
      collected == nil ? parts.allSatisfy { $0.columns == nil } : parts.count == 1,
      "\(weight.name) reads columns beside other inputs")
    let packed = weight.packed(precision)
    guard let update, update.scale != 0 else {
      Scalar.multiply(
        sumOf: terms, packed: packed, addingToRows: bias?.value.buffer, precision: precision,
        choice: sums.kernelChoice, into: y)
      return record(output, from: values) { [unowned self] outputGradient, gradients in
        let dy = Matrix(outputGradient.buffer, rows: rowCount, columns: outputWidth)
        contribute(
          dy, inputs: kept, weight: weight, to: gradients, weightPlace: weightPlace, sums)
        addColumnSums(of: dy, to: biasPlace.flatMap(gradients.place(of:)), sums)
        collected?.add(
          ColumnGradients.Term(
            outputGradient: outputGradient, weight: weight, update: nil, gradients: gradients,
            downPlace: 0))
      }
    }

    let rank = update.down.value.shape[0]
    let scale = Scalar(update.scale)
    let hidden = result([rowCount, rank])
    let hiddenMatrix = Matrix(hidden.buffer, rows: rowCount, columns: rank)
    func up() -> Matrix<Scalar> {
      Matrix(update.up.value.buffer, rows: outputWidth, columns: rank)
    }
    // Scaled here, so that the update is one more term of the same sum.
    for (index, term) in self.terms(
      inputs, columns(of: update.down.value, rows: rank, widths)
    ).enumerated() {
      Scalar.multiply(
        term.a, term.b, scale: scale, accumulating: index > 0, precision: precision,
        choice: sums.kernelChoice, into: hiddenMatrix)
    }
    terms.append((hiddenMatrix, up().transposed))
    Scalar.multiply(
      sumOf: terms, packed: packed, addingToRows: bias?.value.buffer, precision: precision,
      choice: sums.kernelChoice, into: y)
    let (downPlace, upPlace) = (values.count, values.count + 1)
    return record(output, from: values + [used(update.down), used(update.up)]) {
      [unowned self] outputGradient, gradients in
      let dy = Matrix(outputGradient.buffer, rows: rowCount, columns: outputWidth)
      contribute(
        dy, inputs: kept, weight: weight, to: gradients, weightPlace: weightPlace, sums)
      if let upGradient = gradients.place(of: upPlace) {
        addProducts(
          dy, [Matrix(hidden.buffer, rows: rowCount, columns: rank)], [rank], to: upGradient, sums)
      }
      addColumnSums(of: dy, to: biasPlace.flatMap(gradients.place(of:)), sums)
      if let collected {
        return collected.add(
          ColumnGradients.Term(
            outputGradient: outputGradient, weight: weight, update: update, gradients: gradients,
            downPlace: downPlace))
      }
      let hiddenGradient = scratch([rowCount, rank])
      let dh = Matrix(hiddenGradient.buffer, rows: rowCount, columns: rank)
      Scalar.multiply(
        dy, up(), scale: scale, accumulating: false, precision: precision,
        choice: sums.kernelChoice, into: dh)
      contribute(
        dh, inputs: kept, weight: update.down, to: gradients, weightPlace: downPlace, sums)
    }
  }

  /// y = x + bias, for a sum that a bias is not a part of.
  /// - Shapes: x […, D], bias [D] → […, D].
  /// - Parameter sums: the gradient of the bias.
  package func add(
    _ x: Value<Scalar>, bias: Parameter<Scalar>, sums: RowSums = .whole
  ) -> Value<Scalar> {
    let width = bias.value.count
    precondition(x.shape.last == width, "a bias of \(width) for \(x.shape)")
    let rowCount = x.tensor.count / width
    let output = result(x.shape)
    output.buffer.copy(from: x.tensor.buffer)
    Scalar.addBias(bias.value.buffer, toRowsOf: output.buffer, rowCount: rowCount)
    return record(output, from: [x, weight(bias)]) { [unowned self] outputGradient, gradients in
      addColumnSums(
        of: Matrix(outputGradient.buffer, rows: rowCount, columns: width),
        to: gradients.place(of: 1), sums)
      gradients.pass(outputGradient, to: [0])
    }
  }

  /// x_p and W_pᵀ.
  private func terms(
    _ inputs: [Matrix<Scalar>], _ weights: [Matrix<Scalar>]
  ) -> [(a: Matrix<Scalar>, b: Matrix<Scalar>)] {
    zip(inputs, weights).map { ($0, $1.transposed) }
  }

  /// dx_p += dy W_p; dW_p += dyᵀ x_p.
  /// - Parameter firstPlace: of the inputs among those of the operation.
  func contribute(
    _ dy: Matrix<Scalar>, inputs: KeptInputs<Scalar>, weight: Parameter<Scalar>,
    to gradients: InputGradients<Scalar>, firstPlace: Int = 0, weightPlace: Int, _ sums: RowSums
  ) {
    let widths = inputs.widths
    for (index, part) in columns(of: weight.value, rows: dy.columnCount, widths).enumerated() {
      guard let dx = gradients.place(of: firstPlace + index) else { continue }
      Scalar.multiply(
        dy, part, scale: 1, accumulating: dx.accumulates, precision: precision,
        choice: sums.kernelChoice,
        into: Matrix(dx.buffer, rows: dy.rowCount, columns: widths[index]))
    }
    guard let weightGradient = gradients.place(of: weightPlace) else { return }
    addProducts(dy, inputs.matrices, widths, to: weightGradient, sums)
  }

  /// dW_p += dyᵀ x_p.
  func addProducts(
    _ dy: Matrix<Scalar>, _ inputs: [Matrix<Scalar>], _ widths: [Int],
    to gradient: GradientBuffer<Scalar>, _ sums: RowSums
  ) {
    func add(_ rows: Range<Int>, to sum: GradientBuffer<Scalar>) {
      let parts = columns(
        of: Tensor(sum.buffer, shape: [sum.count]), rows: dy.columnCount, widths)
      for (x, part) in zip(inputs, parts) {
        Scalar.multiply(
          dy.rows(rows).transposed, x.rows(rows), scale: 1, accumulating: sum.accumulates,
          precision: precision, choice: sums.kernelChoice, into: part)
      }
    }
    guard let blocks = sums.blocks else { return add(0..<dy.rowCount, to: gradient) }
    sum(over: blocks, rowCount: dy.rowCount, into: [gradient]) { piece, sums in
      sums[0].map { add(piece.rows, to: $0) }
    }
  }

  /// d bias += Σ dy over rows.
  func addColumnSums(
    of dy: Matrix<Scalar>, to gradient: GradientBuffer<Scalar>?, _ sums: RowSums
  ) {
    guard let gradient else { return }
    guard let blocks = sums.blocks else {
      return Scalar.addColumnSums(of: dy.buffer, rowCount: dy.rowCount, to: gradient.addend)
    }
    let width = dy.columnCount
    sum(over: blocks, rowCount: dy.rowCount, into: [gradient]) { piece, sums in
      sums[0].map {
        Scalar.addColumnSums(
          of: dy.buffer[piece.rows.lowerBound * width..<piece.rows.upperBound * width],
          rowCount: piece.rows.count, to: $0.addend)
      }
    }
  }

  /// A matrix of `rows` rows cut into stretches of columns.
  func columns(
    of tensor: Tensor<Scalar>, rows: Int, _ widths: [Int]
  ) -> [Matrix<Scalar>] {
    let stride = tensor.count / rows
    var first = 0
    return widths.map { width in
      defer { first += width }
      return Matrix(
        tensor.buffer[first..<tensor.count], rows: rows, columns: width, stride: stride)
    }
  }
}

extension Matrix {
  /// Some of its rows, of a matrix that is read as it lies.
  func rows(_ range: Range<Int>) -> Matrix {
    guard range.count < rowCount else { return self }
    return Matrix(
      buffer[min(range.lowerBound * stride, buffer.count)..<buffer.count], rows: range.count,
      columns: columnCount, stride: stride)
  }
}
