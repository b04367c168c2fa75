// Means over tokens of which several ranks may have parts, and sums of such parts.

import Basics
import DenseKernels
import MeshLayout
package import Tensors

extension Tape {
  /// What the tokens of x add to the mean over all tokens of their sample.
  ///
  /// - Parameters:
  ///   - sampleCount: samples; neighboring rows of x may belong to one (frames).
  ///   - tokenCount: of a sample, those that are not in x included.
  ///   - sums: in blocks, each sample is summed in them.
  /// - Shapes: x [B·F, l, D] → [B, D].
  package func meanPart(
    of x: Value<Scalar>, sampleCount: Int, tokenCount: Int, sums: RowSums = .whole
  ) -> Value<Scalar> {
    let width = x.shape[2]
    let ownCount = x.shape[0] * x.shape[1] / sampleCount
    let tokens = x.reshaped([sampleCount, ownCount, width])
    let share = 1 / Scalar(tokenCount)
    guard let blocks = sums.blocks else {
      return weightedTokenSum(
        tokens, weights: Array(repeating: share, count: sampleCount * ownCount))
    }
    let output = result([sampleCount, width])
    let shares = Buffer(Array(repeating: share, count: x.shape[1]))
    let rowsPerSample = x.shape[0] / sampleCount
    sum(
      over: blocks, rowCount: x.shape[0] * x.shape[1],
      into: [GradientBuffer(output.buffer, accumulates: false)]
    ) { piece, sums in
      let (first, count) = (piece.rows.lowerBound * width, piece.rows.count)
      let sample = piece.sample / rowsPerSample * width
      guard let sum = sums[0]?.addend else { return }
      Scalar.multiply(
        Matrix(shares[0..<count], rows: 1, columns: count),
        Matrix(x.tensor.buffer[first..<first + count * width], rows: count, columns: width),
        scale: 1, accumulating: true,
        into: Matrix(sum[sample..<sample + width], rows: 1, columns: width))
    }
    return record(output, from: [tokens]) { outputGradient, gradients in
      guard let dx = gradients.place(of: 0) else { return }
      for token in 0..<sampleCount * ownCount {
        let sample = token / ownCount * width
        let place = dx.buffer[token * width..<(token + 1) * width]
        let gradient = outputGradient.buffer[sample..<sample + width]
        if dx.accumulates {
          Scalar.add(share, gradient, to: place)
        } else {
          Scalar.combine(share, gradient, 0, gradient, into: place)
        }
      }
    }
  }

  /// x completed by what others add to it: the sum of `parts`, of which x is one, in the one tree. On the way back x
  /// gets the gradient of the sum.
  /// - Shapes: x of C elements, parts of n · C → as x.
  package func completed(_ x: Value<Scalar>, by parts: Tensor<Scalar>) -> Value<Scalar> {
    let count = x.tensor.count
    require(
      count > 0 && parts.count % count == 0, "parts of \(parts.count) elements for \(count)")
    let sum = treeReduce(
      count: parts.count / count,
      operand: { parts.buffer[$0 * count..<($0 + 1) * count] },
      combine: { left, right in
        Scalar.add(1, right, to: left)
        return left
      })
    let output = result(x.shape)
    output.buffer.copy(from: sum)
    return record(output, from: [x]) { outputGradient, gradients in
      gradients.pass(outputGradient, to: [0])
    }
  }
}
