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
        Float.multiply(
          sumOf: [(left, right)], addingToRows: bias, precision: precision, into: target)
        results.append(c.array)
        let packed = Float.packed(right, precision: precision, allocate: Buffer.init(zeroed:))
        Float.multiply(
          sumOf: [(left, right)], packed: packed, addingToRows: bias, precision: precision,
          into: target)
        #expect(c.array == results.last)
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

  /// Large enough to be shared, of sizes that no part divides.
  private static let elementCount = 3 * 151 * 197

  @Test func `loops over elements and rows are the same on any number of threads`() {
    let count = Self.elementCount
    let (x, y, bias): (Buffer<Float>, Buffer<Float>, Buffer<Float>) = (
      normals(count, 1), normals(count, 2), normals(197, 3)
    )
    expectEqualBits {
      var results: [[Float]] = []
      for activation in [Activation.geluTanh, .silu, .softplus, .pseudoHuber(c: 0.5)] {
        let (z, dx): (Buffer<Float>, Buffer<Float>) = (poisoned(count), startedGradient(count))
        Float.apply(activation, to: x, into: z)
        Float.applyBackward(activation, outputGradient: y, x: x, inputGradient: added(to: dx))
        results += [z.array, dx.array]
      }
      let (z, rows, sums): (Buffer<Float>, Buffer<Float>, Buffer<Float>) = (
        poisoned(count), startedGradient(count), startedGradient(197)
      )
      Float.combine(0.5, x, 2, y, into: z)
      Float.add(3, x, to: z)
      Float.addProduct(x, y, to: z)
      Float.addBias(bias, toRowsOf: z, rowCount: 3 * 151)
      Float.addColumnSums(of: z, rowCount: 3 * 151, to: sums)
      Float.copyRows(z, stride: 197, to: rows, stride: 200, rowCount: 440, width: 190)
      Float.addRows(x, stride: 200, to: rows, stride: 197, rowCount: 440, width: 190)
      results += [z.array, rows.array, sums.array]
      Float.multiplyElements(x, y, into: z)
      return results + [z.array]
    }
  }

  @Test func `gates and norms are the same on any number of threads`() {
    let shape = ModulationShape(groupCount: 3, rowsPerGroup: 151, width: 197)
    let count = Self.elementCount
    let (x, h): (Buffer<Float>, Buffer<Float>) = (normals(count, 1), normals(count, 2))
    let (scale, shift): (Buffer<Float>, Buffer<Float>) = (normals(591, 3), normals(591, 4))
    expectEqualBits {
      let (y, mean, inverse): (Buffer<Float>, Buffer<Float>, Buffer<Float>) = (
        poisoned(count), poisoned(453), poisoned(453)
      )
      Float.gatedResidual(x, gate: scale, h: h, shape: shape, into: y)
      var results = [y.array]
      let (dh, dgate): (Buffer<Float>, Buffer<Float>) = (poisoned(count), startedGradient(591))
      Float.gatedResidualBackward(
        outputGradient: x, gate: scale, h: h, shape: shape, hGradient: over(dh),
        gateGradient: dgate)
      Float.modulatedLayerNorm(
        x, scale: scale, shift: shift, scaleOffset: 1, epsilon: 1e-6, shape: shape, into: y,
        mean: mean, inverseDeviation: inverse)
      results += [dh, dgate, y, mean, inverse].map(\.array)
      let (dx, dscale, dshift): (Buffer<Float>, Buffer<Float>, Buffer<Float>) = (
        startedGradient(count), startedGradient(591), startedGradient(591)
      )
      Float.modulatedLayerNormBackward(
        outputGradient: h, x: x, scale: scale, scaleOffset: 1, shape: shape, mean: mean,
        inverseDeviation: inverse, inputGradient: added(to: dx), scaleGradient: dscale,
        shiftGradient: dshift)
      return results + [dx, dscale, dshift].map(\.array)
    }
  }

  @Test(arguments: [0, 40, 151])
  func `head norms are the same on any number of threads`(rotatedCount: Int) {
    let shape = HeadNormShape(
      sampleCount: 3, tokenCount: 151, headCount: 6, headWidth: 32, rotatedCount: rotatedCount)
    let count = 3 * 151 * 192
    let (x, dy, gain): (Buffer<Float>, Buffer<Float>, Buffer<Float>) = (
      normals(count, 1), normals(count, 2), normals(32, 3)
    )
    let (cosines, sines): (Buffer<Float>, Buffer<Float>) = (
      normals(rotatedCount * 16, 4), normals(rotatedCount * 16, 5)
    )
    expectEqualBits {
      let (y, inverse): (Buffer<Float>, Buffer<Float>) = (poisoned(count), poisoned(count / 32))
      Float.headNorm(
        x, gain: gain, cosines: cosines, sines: sines, epsilon: 1e-6, shape: shape, into: y,
        inverseRoot: inverse)
      let (dx, dgain): (Buffer<Float>, Buffer<Float>) = (poisoned(count), startedGradient(32))
      Float.headNormBackward(
        outputGradient: dy, x: x, gain: gain, cosines: cosines, sines: sines, shape: shape,
        inverseRoot: inverse, inputGradient: over(dx), gainGradient: dgain)
      return [y, inverse, dx, dgain].map(\.array)
    }
  }

  @Test(arguments: [false, true])
  func `rotated rows are the same on any number of threads`(backwards: Bool) {
    let count = 453 * 192
    let x: Buffer<Float> = normals(count, 1)
    let (cosines, sines): (Buffer<Float>, Buffer<Float>) = (normals(16, 2), normals(16, 3))
    expectEqualBits {
      [false, true].map { accumulating in
        let y: Buffer<Float> = normals(count, 4)
        Float.rotateRows(
          x, stride: 192, to: y, stride: 192, rowCount: 453, width: 192, cosines: cosines,
          sines: sines, backwards: backwards, accumulating: accumulating)
        return y.array
      }
    }
  }

  @Test func `an update is the same on any number of threads`() {
    let count = Self.elementCount
    let gradient: Buffer<Float> = normals(count, 1)
    expectEqualBits {
      let state: [Buffer<Float>] = [normals(count, 2), normals(count, 3), normals(count, 4)]
      let second = Buffer(normals(count, 5).array.map { (x: Float) in x * x })
      AdamW.update(
        parameters: state[0], gradients: gradient, firstMoment: state[1], secondMoment: second,
        ema: state[2], step: AdamW.Step(number: 3, learningRate: 0.01))
      return state.map(\.array) + [second.array]
    }
  }
}
