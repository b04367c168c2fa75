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

extension Tape {
  /// y = x Wᵀ + bias + scale · (x Aᵀ) Bᵀ.
  /// - Shapes: x […, K], weight [D, K] (further weight dimensions count as K), bias [D] → […, D].
  package func linear(
    _ x: Value<Scalar>, weight: Parameter<Scalar>, bias: Parameter<Scalar>? = nil,
    update: LowRankUpdate<Scalar>? = nil
  ) -> Value<Scalar> {
    linear(parts: [x], weight: weight, bias: bias, update: update)
  }

  /// The linear layer of inputs joined along their last dimension, which are never joined in memory:
  /// y = Σ_p x_p W_pᵀ + bias + scale · (Σ_p x_p A_pᵀ) Bᵀ.
  /// - Shapes: x_p […, K_p] with Σ K_p = K, weight [D, K], bias [D] → […, D].
  package func linear(
    parts: [Value<Scalar>], weight: Parameter<Scalar>, bias: Parameter<Scalar>? = nil,
    update: LowRankUpdate<Scalar>? = nil
  ) -> Value<Scalar> {
    let outputWidth = weight.shape[0]
    let inputWidth = weight.count / outputWidth
    let widths = parts.map { $0.shape.last ?? 1 }
    let leading = parts[0].shape.dropLast()
    precondition(
      widths.reduce(0, +) == inputWidth && parts.allSatisfy { $0.shape.dropLast() == leading },
      "\(weight.name) takes width \(inputWidth), the input is \(parts.map(\.shape))")
    let rowCount = leading.reduce(1, *)
    let inputs = zip(parts, widths).map { part, width in
      Matrix(part.tensor.buffer, rows: rowCount, columns: width)
    }
    let output = result(leading + [outputWidth])
    let y = Matrix(output.buffer, rows: rowCount, columns: outputWidth)
    var terms = terms(inputs, columns(of: weight.value, rows: outputWidth, widths))
    let values = parts + [self.weight(weight)] + (bias.map { [self.weight($0)] } ?? [])
    let (weightPlace, biasPlace) = (parts.count, bias.map { _ in parts.count + 1 })
    let packed = weight.packed(precision)
    guard let update, update.scale != 0 else {
      Scalar.multiply(
        sumOf: terms, packed: packed, addingToRows: bias?.value.buffer, precision: precision,
        into: y)
      return record(output, from: values) { [unowned self] outputGradient, gradients in
        let dy = Matrix(outputGradient.buffer, rows: rowCount, columns: outputWidth)
        contribute(
          dy, inputs: inputs, weight: weight, to: gradients, weightPlace: weightPlace)
        biasPlace.flatMap(gradients.addend(of:)).map {
          Scalar.addColumnSums(of: outputGradient.buffer, rowCount: rowCount, to: $0)
        }
      }
    }

    let rank = update.down.shape[0]
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
        into: hiddenMatrix)
    }
    terms.append((hiddenMatrix, up().transposed))
    Scalar.multiply(
      sumOf: terms, packed: packed, addingToRows: bias?.value.buffer, precision: precision,
      into: y)
    let (downPlace, upPlace) = (values.count, values.count + 1)
    return record(output, from: values + [self.weight(update.down), self.weight(update.up)]) {
      [unowned self] outputGradient, gradients in
      let dy = Matrix(outputGradient.buffer, rows: rowCount, columns: outputWidth)
      contribute(
        dy, inputs: inputs, weight: weight, to: gradients, weightPlace: weightPlace)
      let hiddenGradient = scratch([rowCount, rank])
      let dh = Matrix(hiddenGradient.buffer, rows: rowCount, columns: rank)
      Scalar.multiply(
        dy, up(), scale: scale, accumulating: false, precision: precision, into: dh)
      contribute(
        dh, inputs: inputs, weight: update.down, to: gradients, weightPlace: downPlace)
      if let upGradient = gradients.place(of: upPlace) {
        Scalar.multiply(
          dy.transposed, Matrix(hidden.buffer, rows: rowCount, columns: rank), scale: 1,
          accumulating: upGradient.accumulates, precision: precision,
          into: Matrix(upGradient.buffer, rows: outputWidth, columns: rank))
      }
      biasPlace.flatMap(gradients.addend(of:)).map {
        Scalar.addColumnSums(of: outputGradient.buffer, rowCount: rowCount, to: $0)
      }
    }
  }

  /// x_p and W_pᵀ.
  private func terms(
    _ inputs: [Matrix<Scalar>], _ weights: [Matrix<Scalar>]
  ) -> [(a: Matrix<Scalar>, b: Matrix<Scalar>)] {
    zip(inputs, weights).map { ($0, $1.transposed) }
  }

  /// dx_p += dy W_p; dW_p += dyᵀ x_p.
  private func contribute(
    _ dy: Matrix<Scalar>, inputs: [Matrix<Scalar>], weight: Parameter<Scalar>,
    to gradients: InputGradients<Scalar>, weightPlace: Int
  ) {
    let widths = inputs.map(\.columnCount)
    for (index, part) in columns(of: weight.value, rows: dy.columnCount, widths).enumerated() {
      guard let dx = gradients.place(of: index) else { continue }
      Scalar.multiply(
        dy, part, scale: 1, accumulating: dx.accumulates, precision: precision,
        into: Matrix(dx.buffer, rows: dy.rowCount, columns: widths[index]))
    }
    guard let weightGradient = gradients.place(of: weightPlace) else { return }
    let parts = columns(
      of: Tensor(weightGradient.buffer, shape: weight.shape), rows: dy.columnCount, widths)
    for (x, part) in zip(inputs, parts) {
      Scalar.multiply(
        dy.transposed, x, scale: 1, accumulating: weightGradient.accumulates,
        precision: precision, into: part)
    }
  }

  /// A matrix of `rows` rows cut into stretches of columns.
  private func columns(
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
