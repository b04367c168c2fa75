// Threads share work and change no bit. The number is the program's, so other tests that run beside
// these may be split too; that they still pass is part of the claim.

import Testing

@testable import DenseKernels

@Suite(.serialized) struct KernelThreadsTests {
  /// The same computation on one thread and on three.
  private func expectEqualBits(_ compute: () -> [[Float]]) {
    let before = KernelThreads.count
    defer { KernelThreads.count = before }
    KernelThreads.count = 1
    let alone = compute()
    KernelThreads.count = 3
    let shared = compute()
    #expect(alone.map { $0.map(\.bitPattern) } == shared.map { $0.map(\.bitPattern) })
    #expect(alone.allSatisfy { $0.contains { $0 != 0 } })
  }

  @Test func `work is split without gaps, into at most one part for each thread`() {
    let before = KernelThreads.count
    defer { KernelThreads.count = before }
    KernelThreads.count = 4
    for unitCount in [0, 1, 3, 4, 10] {
      let owners = Buffer<Float>(zeroed: max(unitCount, 1))
      KernelThreads.split(unitCount) { part in
        for unit in part { owners[unit] += 1 }
      }
      #expect(owners.array.prefix(unitCount).allSatisfy { $0 == 1 })
    }
  }

  @Test(arguments: ProductPrecision.allCases, [(500, 130, 90), (70, 301, 410)])
  func `a product is the same on any number of threads`(
    precision: ProductPrecision, size: (rows: Int, inner: Int, columns: Int)
  ) {
    let (a, b, bias): (Buffer<Float>, Buffer<Float>, Buffer<Float>) = (
      normals(size.rows * size.inner, 1), normals(size.inner * size.columns, 2),
      normals(size.columns, 3)
    )
    expectEqualBits {
      var results: [[Float]] = []
      for isTransposed in [false, true] {
        let c: Buffer<Float> = startedGradient(size.rows * size.columns)
        let left =
          isTransposed
          ? Matrix(a, rows: size.inner, columns: size.rows, isTransposed: true)
          : Matrix(a, rows: size.rows, columns: size.inner)
        let right =
          isTransposed
          ? Matrix(b, rows: size.columns, columns: size.inner, isTransposed: true)
          : Matrix(b, rows: size.inner, columns: size.columns)
        let target = Matrix(c, rows: size.rows, columns: size.columns)
        Float.multiply(
          left, right, scale: 0.5, accumulating: true, precision: precision, into: target)
        results.append(c.array)
        Float.multiply(left, right, addingToRows: bias, precision: precision, into: target)
        results.append(c.array)
      }
      return results
    }
  }

  @Test(arguments: ProductPrecision.allCases)
  func `attention is the same on any number of threads`(precision: ProductPrecision) {
    let shape = AttentionShape(
      sampleCount: 2, queryCount: 150, keyCount: 40, headCount: 4, headWidth: 16)
    let (queries, keys) = (2 * 150 * 64, 2 * 40 * 64)
    let mask = AttentionMask(visibleKeys: (0..<80).map { $0 % 40 < 25 + $0 / 40 ? 1 : 0 })
    let (query, key, value): (Buffer<Float>, Buffer<Float>, Buffer<Float>) = (
      normals(queries, 1), normals(keys, 2), normals(keys, 3)
    )
    expectEqualBits {
      let (output, logSumExp): (Buffer<Float>, Buffer<Float>) = (
        poisoned(queries), poisoned(2 * 4 * 150)
      )
      Float.attention(
        query: query, key: key, value: value, mask: mask, shape: shape, precision: precision,
        into: output, logSumExp: logSumExp)
      let (dq, dk, dv): (Buffer<Float>, Buffer<Float>, Buffer<Float>) = (
        poisoned(queries), poisoned(keys), poisoned(keys)
      )
      Float.attentionBackward(
        outputGradient: normals(queries, 4), query: query, key: key, value: value, output: output,
        logSumExp: logSumExp, mask: mask, shape: shape, precision: precision,
        queryGradient: over(dq), keyGradient: over(dk), valueGradient: over(dv))
      return [output.array, logSumExp.array, dq.array, dk.array, dv.array]
    }
  }
}
