import DenseKernels
import TestSupport
import Testing

struct FloatReductionsTests {
  /// Both sum exact Float64 terms; orders differ, so n rounding errors of Float64 remain.
  @Test(arguments: oddSizes + [1000, 4096])
  func `reductions agree with the slow twin to Float64`(count: Int) {
    let x: Buffer<Float> = normals(count, 1)
    let y: Buffer<Float> = normals(count, 2)
    let (x64, y64): (Buffer<Double>, Buffer<Double>) = (normals(count, 1), normals(count, 2))
    let bound = Double(count) * Double.ulpOfOne * 8
    #expect(abs(Float.sum(x) - Double.sum(x64)) <= bound)
    #expect(abs(Float.sumOfMagnitudes(x) - Double.sumOfMagnitudes(x64)) <= bound)
    #expect(abs(Float.dot(x, y) - Double.dot(x64, y64)) <= bound * 4)
  }

  @Test func `integers are summed exactly and nothing is zero`() {
    let x = Buffer((1...1001).map { Float($0) })
    #expect(Float.sum(x) == 501_501)
    #expect(Float.dot(x, x) == 1001 * 1002 * 2003 / 6)
    #expect(Float.sumOfMagnitudes(Buffer(x.array.map { -$0 })) == 501_501)
    #expect(Float.sum(Buffer<Float>(zeroed: 0)) == 0)
  }

  @Test(arguments: oddSizes, [1, 2, 63, 64, 65, 200])
  func `bias rows and column sums agree with the slow twin`(width: Int, rowCount: Int) {
    func run<S: KernelScalar>(_: S.Type) -> [[Double]] {
      let x: Buffer<S> = normals(rowCount * width, 1)
      let sums: Buffer<S> = startedGradient(width)
      S.addColumnSums(of: x, rowCount: rowCount, to: sums)
      S.addBias(normals(width, 2), toRowsOf: x, rowCount: rowCount)
      return doubles(x, sums)
    }
    // Blocks of 64 rows, then the blocks: at most 64 + rows/64 + 1 roundings of partial sums below
    // 4 √rows, say 60.
    let bound = Double(min(rowCount, 64) + rowCount / 64 + 2) * 60 * epsilon
    expectAgreement(run(Float.self), run(Double.self), absolute: bound, "\(rowCount)×\(width)")
  }
}
