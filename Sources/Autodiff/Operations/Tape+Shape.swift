// Cutting, joining, repeating, permuting and pooling.

import DenseKernels
import Tensors

extension Tape {
  /// Joins along `dimension`; all other dimensions agree.
  package func concatenate(_ values: [Value<Scalar>], along dimension: Int) -> Value<Scalar> {
    let first = values[0].shape
    precondition(
      values.allSatisfy {
        $0.shape.count == first.count && $0.shape[..<dimension] == first[..<dimension]
          && $0.shape[(dimension + 1)...] == first[(dimension + 1)...]
      }, "joining \(values.map(\.shape)) along dimension \(dimension)")
    let outer = first[..<dimension].reduce(1, *)
    let inner = first[(dimension + 1)...].reduce(1, *)
    let widths = values.map { $0.shape[dimension] * inner }
    let stride = widths.reduce(0, +)
    var shape = first
    shape[dimension] = values.reduce(0) { $0 + $1.shape[dimension] }
    let output = result(shape)
    var offsets: [Int] = []
    var offset = 0
    for (value, width) in zip(values, widths) {
      offsets.append(offset)
      Scalar.copyRows(
        value.tensor.buffer, stride: width, to: output.buffer[offset..<output.count],
        stride: stride, rowCount: outer, width: width)
      offset += width
    }
    return record(output, from: values) { outputGradient, gradients in
      // Also what has no element gets its gradient: other ranks may wait for what comes of it.
      for index in widths.indices {
        guard let gradient = gradients.place(of: index) else { continue }
        let move = gradient.accumulates ? Scalar.addRows : Scalar.copyRows
        move(
          outputGradient.buffer[offsets[index]..<outputGradient.count], stride, gradient.buffer,
          widths[index], outer, widths[index])
      }
    }
  }

  /// Elements `range` of `dimension`.
  package func slice(
    _ x: Value<Scalar>, along dimension: Int, _ range: Range<Int>
  ) -> Value<Scalar> {
    precondition(
      range.lowerBound >= 0 && range.upperBound <= x.shape[dimension],
      "cutting \(range) from dimension \(dimension) of \(x.shape)")
    let outer = x.shape[..<dimension].reduce(1, *)
    let inner = x.shape[(dimension + 1)...].reduce(1, *)
    let stride = x.shape[dimension] * inner
    let offset = range.lowerBound * inner
    let width = range.count * inner
    var shape = x.shape
    shape[dimension] = range.count
    let output = result(shape)
    Scalar.copyRows(
      x.tensor.buffer[offset..<x.tensor.count], stride: stride, to: output.buffer, stride: width,
      rowCount: outer, width: width)
    return record(output, from: [x]) { outputGradient, gradients in
      guard let dx = gradients.addend(of: 0) else { return }
      Scalar.addRows(
        outputGradient.buffer, stride: width, to: dx[offset..<dx.count], stride: stride,
        rowCount: outer, width: width)
    }
  }

  /// Equal parts of the last dimension, as torch.chunk.
  package func chunks(_ x: Value<Scalar>, count: Int) -> [Value<Scalar>] {
    let last = x.shape.count - 1
    precondition(x.shape[last] % count == 0, "\(count) equal parts of \(x.shape)")
    let width = x.shape[last] / count
    return (0..<count).map { slice(x, along: last, ($0 * width)..<(($0 + 1) * width)) }
  }

  /// `count` copies of x under a new first dimension.
  package func repeated(_ x: Value<Scalar>, count: Int) -> Value<Scalar> {
    let output = result([count] + x.shape)
    let width = x.tensor.count
    for index in 0..<count {
      output.buffer[(index * width)..<((index + 1) * width)].copy(from: x.tensor.buffer)
    }
    return record(output, from: [x]) { outputGradient, gradients in
      guard let dx = gradients.addend(of: 0) else { return }
      Scalar.addColumnSums(of: outputGradient.buffer, rowCount: count, to: dx)
    }
  }

  /// Dimension d of the result is dimension `axes[d]` of x, as numpy.transpose.
  package func permuted(_ x: Value<Scalar>, axes: [Int]) -> Value<Scalar> {
    precondition(axes.sorted() == Array(x.shape.indices), "axes \(axes) of \(x.shape)")
    let shape = axes.map { x.shape[$0] }
    let output = result(shape)
    Scalar.permute(x.tensor.buffer, shape: x.shape, axes: axes, into: output.buffer)
    // Of the input only its shape is kept.
    return record(output, from: [x]) {
      [inputShape = x.shape, unowned self] outputGradient, gradients in
      guard let dx = gradients.place(of: 0) else { return }
      let inverse = axes.indices.map { axis in axes.firstIndex(of: axis) ?? 0 }
      let back = dx.accumulates ? scratch(inputShape).buffer : dx.buffer
      Scalar.permute(outputGradient.buffer, shape: shape, axes: inverse, into: back)
      if dx.accumulates { Scalar.add(1, back, to: dx.buffer) }
    }
  }

  /// Σ_l weights[b, l] x[b, l, :], the weights constant: a mean over valid tokens, for example.
  /// - Shapes: x [B, L, D], weights B·L → [B, D].
  package func weightedTokenSum(_ x: Value<Scalar>, weights: [Scalar]) -> Value<Scalar> {
    precondition(
      x.shape.count == 3 && weights.count == x.shape[0] * x.shape[1],
      "\(weights.count) weights for the tokens of \(x.shape)")
    let (sampleCount, tokenCount, width) = (x.shape[0], x.shape[1], x.shape[2])
    let weightBuffer = Buffer(weights)
    let output = result([sampleCount, width])
    func weightRow(_ b: Int) -> Matrix<Scalar> {
      Matrix(
        weightBuffer[(b * tokenCount)..<((b + 1) * tokenCount)], rows: 1, columns: tokenCount)
    }
    for b in 0..<sampleCount {
      Scalar.multiply(
        weightRow(b),
        Matrix(x.tensor.rows(b..<(b + 1)).buffer, rows: tokenCount, columns: width), scale: 1,
        accumulating: false,
        into: Matrix(output.rows(b..<(b + 1)).buffer, rows: 1, columns: width))
    }
    return record(output, from: [x]) { outputGradient, gradients in
      guard let dx = gradients.place(of: 0) else { return }
      let length = tokenCount * width
      for b in 0..<sampleCount {
        Scalar.multiply(
          weightRow(b).transposed,
          Matrix(outputGradient.buffer[(b * width)..<((b + 1) * width)], rows: 1, columns: width),
          scale: 1, accumulating: dx.accumulates,
          into: Matrix(
            dx.buffer[(b * length)..<((b + 1) * length)], rows: tokenCount, columns: width))
      }
    }
  }
}
