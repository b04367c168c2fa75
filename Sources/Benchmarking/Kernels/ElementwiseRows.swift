// The kernels between the products, in the shapes of bench-s: 1,312 tokens of width 384, hidden ones
// of 1,536. Bytes: each operand read once, each result written once, gradients that are added to
// both; arrays of these sizes may stay in a cache, so a share of the triad above one is possible.

import DenseKernels

enum ElementwiseRows {
  private static let (tokens, width, hidden, heads) = (1_312, 384, 1_536, 6)

  static func measure(_ options: KernelBenchmark.Options) -> [KernelRow] {
    let count = tokens * width
    let x = ExampleValues.buffer(count, 0)
    let h = ExampleValues.buffer(count, 1)
    let dy = ExampleValues.buffer(count, 2)
    let (y, dx) = (Buffer<Float>(zeroed: count), Buffer<Float>(zeroed: count))
    let vectors = (0..<2).map { ExampleValues.buffer(width, 3 + $0) }
    let vectorGradients = (0..<2).map { _ in Buffer<Float>(zeroed: width) }
    let statistics = (0..<2).map { _ in Buffer<Float>(zeroed: tokens) }
    let shape = ModulationShape(groupCount: 1, rowsPerGroup: tokens, width: width)
    func row(
      _ name: String, bytesPerElement: Int, width: Int = width, _ body: () -> Void
    ) -> KernelRow {
      var row = KernelRow(
        name, sizes: ["rows": tokens, "width": width],
        timing: .measuringKernel(repeats: options.repeatCount, body))
      row.byteCount = Double(bytesPerElement) * Double(tokens) * Double(width)
      return row
    }
    return [
      row("norm+modulate", bytesPerElement: 8) {
        Float.modulatedLayerNorm(
          x, scale: vectors[0], shift: vectors[1], scaleOffset: 1, epsilon: 1e-6, shape: shape,
          into: y, mean: statistics[0], inverseDeviation: statistics[1])
      },
      row("norm+modulate backward", bytesPerElement: 16) {
        Float.modulatedLayerNormBackward(
          outputGradient: dy, x: x, scale: vectors[0], scaleOffset: 1, shape: shape,
          mean: statistics[0], inverseDeviation: statistics[1],
          inputGradient: GradientBuffer(dx, accumulates: true),
          scaleGradient: vectorGradients[0], shiftGradient: vectorGradients[1])
      },
      row("gate+residual", bytesPerElement: 12) {
        Float.gatedResidual(x, gate: vectors[0], h: h, shape: shape, into: y)
      },
      row("gate+residual backward", bytesPerElement: 16) {
        Float.gatedResidualBackward(
          outputGradient: dy, gate: vectors[0], h: h, shape: shape,
          hGradient: GradientBuffer(dx, accumulates: true),
          gateGradient: vectorGradients[0])
      },
    ] + headNormRows(x, dy, y, dx, row: row) + activationRows(row: row)
  }

  private typealias Row = (String, Int, Int, () -> Void) -> KernelRow

  private static func headNormRows(
    _ x: Buffer<Float>, _ dy: Buffer<Float>, _ y: Buffer<Float>, _ dx: Buffer<Float>, row: Row
  ) -> [KernelRow] {
    let headWidth = width / heads
    let shape = HeadNormShape(
      sampleCount: 1, tokenCount: tokens, headCount: heads, headWidth: headWidth,
      rotatedCount: tokens)
    let gain = ExampleValues.buffer(headWidth, 3)
    let gainGradient = Buffer<Float>(zeroed: headWidth)
    let tables = (0..<2).map { ExampleValues.buffer(tokens * headWidth / 2, 5 + $0, scale: 0.5) }
    let inverseRoot = Buffer<Float>(zeroed: tokens * heads)
    return [
      row("QK-norm+RoPE", 8, width) {
        Float.headNorm(
          x, gain: gain, cosines: tables[0], sines: tables[1], epsilon: 1e-6, shape: shape,
          into: y, inverseRoot: inverseRoot)
      },
      row("QK-norm+RoPE backward", 16, width) {
        Float.headNormBackward(
          outputGradient: dy, x: x, gain: gain, cosines: tables[0], sines: tables[1],
          shape: shape, inverseRoot: inverseRoot,
          inputGradient: GradientBuffer(dx, accumulates: true), gainGradient: gainGradient)
      },
    ]
  }

  private static func activationRows(row: Row) -> [KernelRow] {
    let count = tokens * hidden
    let (x, dy) = (ExampleValues.buffer(count, 7), ExampleValues.buffer(count, 8))
    let (y, dx) = (Buffer<Float>(zeroed: count), Buffer<Float>(zeroed: count))
    let bias = ExampleValues.buffer(hidden, 9)
    let sums = Buffer<Float>(zeroed: hidden)
    return [
      row("GELU", 8, hidden) { Float.apply(.geluTanh, to: x, into: y) },
      row("GELU backward", 16, hidden) {
        Float.applyBackward(
          .geluTanh, outputGradient: dy, x: x, inputGradient: GradientBuffer(dx, accumulates: true))
      },
      row("bias", 8, hidden) { Float.addBias(bias, toRowsOf: y, rowCount: tokens) },
      row("bias backward", 4, hidden) { Float.addColumnSums(of: dy, rowCount: tokens, to: sums) },
    ]
  }
}
