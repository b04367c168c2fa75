// Short measurements of one core, for `doctor` and the time model: what products reach, what the
// units could reach, and what memory gives. Each takes well under a second.

import CKernels

package enum MachineProbes {
  /// Median GFLOP/s of Float32 products of `order`³.
  package static func measureGEMM(order: Int = 1024, runCount: Int = 5) -> Double {
    let matrices = (0..<3).map { _ in Buffer<Float>(zeroed: order * order) }
    for matrix in matrices { matrix.fill(with: 0.5) }
    let operands = matrices.map { Matrix($0, rows: order, columns: order) }
    let seconds = medianSeconds(runCount) {
      Float.multiply(
        operands[0], operands[1], scale: 1, accumulating: false, into: operands[2])
    }
    return 2 * Double(order) * Double(order) * Double(order) / seconds / 1e9
  }

  /// Median GFLOP/s of fused multiply-adds that stay in registers: the peak.
  package static func measureFMAPeak(runCount: Int = 5) -> Double {
    let rounds = 2_000_000
    var sink: Float = 0
    let seconds = medianSeconds(runCount) { sink += w2svd_fma_loop(rounds, 0.999) }
    precondition(sink.isFinite, "the sum of the chains is \(sink)")
    return Double(rounds) * 12 * 16 * 2 / seconds / 1e9
  }

  /// Median GB/s of z = x + a y over arrays that do not fit a cache: bytes that move, so z counts twice,
  /// since a line is read before it is written.
  package static func measureTriad(elementCount: Int = 1 << 24, runCount: Int = 5) -> Double {
    let arrays = (0..<3).map { _ in Buffer<Float>(zeroed: elementCount) }
    let seconds = medianSeconds(runCount) {
      unsafe w2svd_triad(3, arrays[0].base, arrays[1].base, arrays[2].base, elementCount)
    }
    return 16 * Double(elementCount) / seconds / 1e9
  }

  /// Median of `runCount` runs after one that warms caches and pages.
  package static func medianSeconds(_ runCount: Int, _ body: () -> Void) -> Double {
    body()
    let clock = ContinuousClock()
    let times = (0..<max(1, runCount)).map { _ in clock.measure(body) / .seconds(1) }
    return times.sorted()[times.count / 2]
  }
}
