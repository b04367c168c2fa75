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
    let outputWidth = weight.value.shape[0]
    let inputWidth = weight.value.count / outputWidth
    precondition(
      x.shape.last == inputWidth,
      "\(weight.name) takes width \(inputWidth), the input is \(x.shape)")
    let rowCount = x.tensor.count / inputWidth
    let output = result(x.shape.dropLast() + [outputWidth])
    let xMatrix = Matrix(x.tensor.buffer, rows: rowCount, columns: inputWidth)
    let yMatrix = Matrix(output.buffer, rows: rowCount, columns: outputWidth)
    let weightMatrix = Matrix(weight.value.buffer, rows: outputWidth, columns: inputWidth)
    Scalar.multiply(
      xMatrix, weightMatrix.transposed, scale: 1, accumulating: false, precision: precision,
      into: yMatrix)
    if let bias {
      Scalar.addBias(bias.value.buffer, toRowsOf: output.buffer, rowCount: rowCount)
    }
    guard let update, update.scale != 0 else {
      let inputs = [x, use(weight)] + (bias.map { [use($0)] } ?? [])
      return record(output, from: inputs) { [precision] outputGradient, gradients in
        let dy = Matrix(outputGradient.buffer, rows: rowCount, columns: outputWidth)
        Self.addLinearGradients(
          dy, x: xMatrix, weight: weightMatrix, input: gradients[0], weightGradient: gradients[1],
          precision: precision)
        if gradients.count > 2, let sums = gradients[2] {
          Scalar.addColumnSums(of: outputGradient.buffer, rowCount: rowCount, to: sums.buffer)
        }
      }
    }

    let rank = update.down.value.shape[0]
    let scale = Scalar(update.scale)
    let hidden = result([rowCount, rank])
    let hiddenMatrix = Matrix(hidden.buffer, rows: rowCount, columns: rank)
    let downMatrix = Matrix(update.down.value.buffer, rows: rank, columns: inputWidth)
    let upMatrix = Matrix(update.up.value.buffer, rows: outputWidth, columns: rank)
    Scalar.multiply(
      xMatrix, downMatrix.transposed, scale: 1, accumulating: false, precision: precision,
      into: hiddenMatrix)
    Scalar.multiply(
      hiddenMatrix, upMatrix.transposed, scale: scale, accumulating: true, precision: precision,
      into: yMatrix)
    let inputs =
      [x, use(weight), use(update.down), use(update.up)] + (bias.map { [use($0)] } ?? [])
    return record(output, from: inputs) { [arena, role, precision] outputGradient, gradients in
      let dy = Matrix(outputGradient.buffer, rows: rowCount, columns: outputWidth)
      Self.addLinearGradients(
        dy, x: xMatrix, weight: weightMatrix, input: gradients[0], weightGradient: gradients[1],
        precision: precision)
      let hiddenGradient = Tensor<Scalar>(
        shape: [rowCount, rank], in: arena, booking: Booking(role, .workspace))
      let dh = Matrix(hiddenGradient.buffer, rows: rowCount, columns: rank)
      Scalar.multiply(
        dy, upMatrix, scale: scale, accumulating: false, precision: precision, into: dh)
      Self.addLinearGradients(
        dh, x: xMatrix, weight: downMatrix, input: gradients[0], weightGradient: gradients[2],
        precision: precision)
      if let upGradient = gradients[3] {
        Scalar.multiply(
          dy.transposed, Matrix(hidden.buffer, rows: rowCount, columns: rank), scale: scale,
          accumulating: true, precision: precision,
          into: Matrix(upGradient.buffer, rows: outputWidth, columns: rank))
      }
      if gradients.count > 4, let sums = gradients[4] {
        Scalar.addColumnSums(of: outputGradient.buffer, rowCount: rowCount, to: sums.buffer)
      }
    }
  }

  /// dx += dy W; dW += dyᵀ x.
  private static func addLinearGradients(
    _ dy: Matrix<Scalar>, x: Matrix<Scalar>, weight: Matrix<Scalar>, input: Tensor<Scalar>?,
    weightGradient: Tensor<Scalar>?, precision: ProductPrecision
  ) {
    if let input {
      Scalar.multiply(
        dy, weight, scale: 1, accumulating: true, precision: precision,
        into: Matrix(input.buffer, rows: x.rowCount, columns: x.columnCount))
    }
    if let weightGradient {
      Scalar.multiply(
        dy.transposed, x, scale: 1, accumulating: true, precision: precision,
        into: Matrix(weightGradient.buffer, rows: weight.rowCount, columns: weight.columnCount))
    }
  }
}
