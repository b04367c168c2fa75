// The numbers of this machine that a simulation of steps wants: rates of products and memory, and the share of
// the product rate that a whole training step reaches.
//
// Each is the best of a few runs, so that other programs spoil it least. About ten seconds.

import DenseKernels
package import Planning

package enum MachineCalibration {
  /// Where the numbers come from, by the machine's keys.
  package static let origins: [String: String] = [
    "productRateFloat32": "measured here, sgemm 1024³ on one thread, best of 3",
    "productRateBFloat16": "measured here, bf16 product 1024³ on one thread, best of 3",
    "memoryBandwidth": "measured here, triad, best of 3",
    "stepEfficiency": "measured here, bench-s training step, best of 3",
  ]

  /// Measures one core.
  /// - Parameter precision: whose step gives the efficiency.
  /// - Throws: what the step benchmark throws.
  package static func measure(
    _ machine: MachineModel = MachineModel(), precision: SimulatedPrecision
  ) throws -> MachineModel {
    var machine = machine
    func best(_ body: () -> Double) -> Double { (0..<3).map { _ in body() }.max() ?? 0 }
    machine.productRateFloat32 = best { 1e9 * productGigaflops(.float32) }
    machine.productRateBFloat16 = best { 1e9 * productGigaflops(.bfloat16) }
    machine.memoryBandwidth = best { 1e9 * MachineProbes.measureTriad(runCount: 3) }
    var benchmark = StepBenchmark(model: BenchmarkModel(), mode: .train)
    benchmark.precision = precision == .fp32 ? .float32 : .bfloat16
    benchmark.repeatCount = 3
    let step = try benchmark.run()
    let rate =
      precision == .fp32 ? machine.productRateFloat32 : machine.productRateBFloat16
    machine.stepEfficiency = min(1, step.modelFlop / step.timing.minimum / rate)
    return machine
  }

  private static func productGigaflops(_ precision: ProductPrecision, order: Int = 1_024) -> Double
  {
    let matrices = (0..<3).map { _ in
      let buffer = Buffer<Float>(zeroed: order * order)
      buffer.fill(with: 0.5)
      return Matrix(buffer, rows: order, columns: order)
    }
    let seconds = MachineProbes.medianSeconds(3) {
      Float.multiply(
        matrices[0], matrices[1], scale: 1, accumulating: false, precision: precision,
        into: matrices[2])
    }
    return 2 * Double(order) * Double(order) * Double(order) / seconds / 1e9
  }
}
