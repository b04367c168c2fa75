// Matrix products in the shapes of bench-s: y = x Wᵀ, and on the way back dx += dy W, dW += dyᵀ x.

import DenseKernels

enum ProductRows {
  /// Tokens, input width, output width: attention's projections, the MLP, the single block's output, a
  /// text stream, a modulation.
  static let shapes = [
    (1_280, 384, 384), (1_280, 384, 1_536), (1_280, 1_536, 384), (1_312, 1_920, 384),
    (32, 384, 1_536), (1, 384, 2_304),
  ]

  static func measure(_ options: KernelBenchmark.Options) -> [KernelRow] {
    options.precisions.flatMap { precision in
      shapes.flatMap { rows($0, $1, $2, precision, options) }
    }
  }

  private static func rows(
    _ rowCount: Int, _ input: Int, _ output: Int, _ precision: ProductPrecision,
    _ options: KernelBenchmark.Options
  ) -> [KernelRow] {
    let x = Matrix(ExampleValues.buffer(rowCount * input, 0), rows: rowCount, columns: input)
    let weight = Matrix(
      ExampleValues.buffer(output * input, 1, scale: 0.02), rows: output, columns: input)
    let y = Matrix(Buffer<Float>(zeroed: rowCount * output), rows: rowCount, columns: output)
    let dy = Matrix(
      ExampleValues.buffer(rowCount * output, 2, scale: 0.001), rows: rowCount, columns: output)
    let dx = Matrix(Buffer<Float>(zeroed: rowCount * input), rows: rowCount, columns: input)
    let dw = Matrix(Buffer<Float>(zeroed: output * input), rows: output, columns: input)
    let products: [(String, Matrix<Float>, Matrix<Float>, Bool, Matrix<Float>)] = [
      ("x Wᵀ", x, weight.transposed, false, y), ("dy W", dy, weight, true, dx),
      ("dyᵀ x", dy.transposed, x, true, dw),
    ]
    return products.map { name, a, b, isAdded, c in
      var row = KernelRow(
        "gemm \(name)", precision, sizes: ["rows": rowCount, "in": input, "out": output],
        timing: .measuringKernel(repeats: options.repeatCount) {
          Float.multiply(
            a, b, scale: 1, accumulating: isAdded, precision: precision, into: c)
        })
      row.flop = 2 * Double(rowCount) * Double(input) * Double(output)
      return row
    }
  }
}
