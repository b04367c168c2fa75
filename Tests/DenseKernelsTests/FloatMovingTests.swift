import DenseKernels
import Testing

struct FloatMovingTests {
  static let permutations: [(shape: [Int], axes: [Int])] = [
    ([], []), ([5], [0]), ([3, 4], [1, 0]), ([17, 65], [1, 0]), ([300, 41], [1, 0]),
    ([2, 3, 4], [0, 2, 1]), ([2, 3, 4], [2, 1, 0]), ([2, 3, 4], [1, 2, 0]),
    ([2, 9, 70], [1, 0, 2]),
    ([2, 7, 3, 16], [0, 2, 1, 3]), ([1, 4, 1, 5], [3, 2, 0, 1]),
    ([2, 3, 4, 2, 5, 2], [0, 2, 4, 1, 3, 5]),
    ([4, 8, 2, 8, 2], [1, 3, 0, 2, 4]), ([3, 0, 2], [2, 0, 1]), ([2, 2, 2, 2], [3, 1, 2, 0]),
  ]

  @Test(arguments: permutations)
  func `permutations move every element as the slow twin does`(shape: [Int], axes: [Int]) {
    let count = shape.reduce(1, *)
    let x = (0..<count).map { Float($0) }
    let (fast, slow) = (Buffer<Float>(zeroed: count), Buffer<Double>(zeroed: count))
    Float.permute(Buffer(x), shape: shape, axes: axes, into: fast)
    Double.permute(Buffer(x.map(Double.init)), shape: shape, axes: axes, into: slow)
    #expect(fast.array.map(Double.init) == slow.array)
  }

  @Test func `a permutation means what numpy means`() {
    let y = Buffer<Float>(zeroed: 6)
    Float.permute(Buffer([0, 1, 2, 3, 4, 5]), shape: [2, 3], axes: [1, 0], into: y)
    #expect(y.array == [0, 3, 1, 4, 2, 5])
  }

  @Test(arguments: [1, 3, 17, 64, 65])
  func `strided rows are copied and added, and nothing between them is touched`(width: Int) {
    let (sourceStride, targetStride, rows) = (width + 3, width + 5, 4)
    func run<S: KernelScalar>(_: S.Type) -> [[Double]] {
      let source: Buffer<S> = normals(rows * sourceStride, 1)
      let (copied, added): (Buffer<S>, Buffer<S>) = (
        normals(rows * targetStride, 2), Buffer((0..<(rows * targetStride)).map { S($0) })
      )
      S.copyRows(
        source, stride: sourceStride, to: copied, stride: targetStride, rowCount: rows, width: width
      )
      S.addRows(
        source, stride: sourceStride, to: added, stride: targetStride, rowCount: rows, width: width)
      return doubles(copied, added)
    }
    let (fast, slow) = (run(Float.self), run(Double.self))
    #expect(fast[0] == slow[0])
    // One rounding of a sum below 512.
    expectAgreement([fast[1]], [slow[1]], absolute: 512 * epsilon, "\(width)")
  }
}
