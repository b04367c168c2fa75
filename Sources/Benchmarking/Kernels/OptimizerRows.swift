// AdamW over all parameters of bench-s, with and without the moving average in the same pass. Bytes:
// parameters, both moments (and the average) read and written, gradients read.

import DenseKernels
import Models

enum OptimizerRows {
  static func measure(_ options: KernelBenchmark.Options) -> [KernelRow] {
    let count = BenchmarkModel().configuration.parameterCount
    let parameters = ExampleValues.buffer(count, 0, scale: 0.02)
    let gradients = ExampleValues.buffer(count, 1, scale: 0.001)
    let moments = (0..<2).map { _ in Buffer<Float>(zeroed: count) }
    let average = ExampleValues.buffer(count, 0, scale: 0.02)
    var number = 0
    func row(_ name: String, bytesPerElement: Int, ema: Buffer<Float>?) -> KernelRow {
      var row = KernelRow(
        name, sizes: ["elements": count],
        timing: .measuringKernel(repeats: options.repeatCount) {
          number += 1
          AdamW.update(
            parameters: parameters, gradients: gradients, firstMoment: moments[0],
            secondMoment: moments[1], ema: ema,
            step: AdamW.Step(number: number, learningRate: 1e-4))
        })
      row.byteCount = Double(bytesPerElement) * Double(count)
      return row
    }
    return [
      row("AdamW", bytesPerElement: 28, ema: nil),
      row("AdamW with EMA", bytesPerElement: 36, ema: average),
    ]
  }
}
