// Attention alone: L tokens, width 384, heads of 64 and 128. Operations: 4 L² D forward, three times
// that with the way back (scores that are computed again count nothing).

import DenseKernels

enum AttentionRows {
  private static let width = 384

  static func measure(_ options: KernelBenchmark.Options) -> [KernelRow] {
    options.precisions.flatMap { precision in
      options.headWidths.flatMap { headWidth in
        options.lengths.flatMap { length in
          rows(length: length, headWidth: headWidth, precision, options)
        }
      }
    }
  }

  private static func rows(
    length: Int, headWidth: Int, _ precision: ProductPrecision,
    _ options: KernelBenchmark.Options
  ) -> [KernelRow] {
    let shape = AttentionShape(
      sampleCount: 1, queryCount: length, keyCount: length, headCount: max(1, width / headWidth),
      headWidth: headWidth)
    let count = length * shape.headCount * headWidth
    let (query, key, value) = (
      ExampleValues.buffer(count, 0), ExampleValues.buffer(count, 1),
      ExampleValues.buffer(count, 2)
    )
    let output = Buffer<Float>(zeroed: count)
    let logSumExp = Buffer<Float>(zeroed: shape.headCount * length)
    let outputGradient = ExampleValues.buffer(count, 3)
    let gradients = (0..<3).map { _ in Buffer<Float>(zeroed: count) }
    func forward() {
      Float.attention(
        query: query, key: key, value: value, mask: nil, shape: shape, precision: precision,
        into: output, logSumExp: logSumExp)
    }
    func both() {
      forward()
      Float.attentionBackward(
        outputGradient: outputGradient, query: query, key: key, value: value, output: output,
        logSumExp: logSumExp, mask: nil, shape: shape, precision: precision,
        queryGradient: GradientBuffer(gradients[0], accumulates: false),
        keyGradient: GradientBuffer(gradients[1], accumulates: false),
        valueGradient: GradientBuffer(gradients[2], accumulates: false))
    }
    let operationCount = 4 * Double(length) * Double(count)
    let sizes = ["tokens": length, "head": headWidth]
    var row = KernelRow(
      "attention forward", precision, sizes: sizes,
      timing: .measuringKernel(repeats: options.repeatCount, forward))
    row.flop = operationCount
    var trained = KernelRow(
      "attention forward+backward", precision, sizes: sizes,
      timing: .measuringKernel(repeats: options.repeatCount, both))
    trained.flop = 3 * operationCount
    return [row, trained]
  }
}
