import DenseKernels
import TestSupport
import Testing

struct FloatNormalizationTests {
  struct LayerNormCase: Sendable, CustomTestStringConvertible {
    let shape: ModulationShape
    let hasScale: Bool
    let hasShift: Bool
    let offset: Double
    var testDescription: String { "\(shape) \(hasScale) \(hasShift) \(offset)" }
  }

  static let layerNormCases = oddSizes.dropFirst().flatMap { width in
    [(true, true, 1.0), (true, true, 0), (false, false, 1), (true, false, 1), (false, true, 1)].map
    {
      LayerNormCase(
        shape: .init(groupCount: 2, rowsPerGroup: 3, width: width), hasScale: $0.0, hasShift: $0.1,
        offset: $0.2)
    }
  }

  private func runLayerNorm<S: KernelScalar>(_: S.Type, _ test: LayerNormCase) -> [[Double]] {
    let shape = test.shape
    let rows = shape.groupCount * shape.rowsPerGroup
    let (count, groupElements) = (rows * shape.width, shape.groupCount * shape.width)
    let x: Buffer<S> = normals(count, 1)
    let scale: Buffer<S>? = test.hasScale ? normals(groupElements, 2) : nil
    let shift: Buffer<S>? = test.hasShift ? normals(groupElements, 3) : nil
    let y: Buffer<S> = poisoned(count)
    let (mean, inverse): (Buffer<S>, Buffer<S>) = (poisoned(rows), poisoned(rows))
    S.modulatedLayerNorm(
      x, scale: scale, shift: shift, scaleOffset: S(test.offset), epsilon: 1e-6, shape: shape,
      into: y, mean: mean, inverseDeviation: inverse)
    let dx: Buffer<S> = startedGradient(count)
    let dscale: Buffer<S> = startedGradient(groupElements)
    let dshift: Buffer<S> = startedGradient(groupElements)
    S.modulatedLayerNormBackward(
      outputGradient: normals(count, 4), x: x, scale: scale, scaleOffset: S(test.offset),
      shape: shape, mean: mean, inverseDeviation: inverse,
      inputGradient: added(to: dx), scaleGradient: dscale, shiftGradient: dshift)
    let newDx: Buffer<S> = poisoned(count)
    S.modulatedLayerNormBackward(
      outputGradient: normals(count, 4), x: x, scale: scale, scaleOffset: S(test.offset),
      shape: shape, mean: mean, inverseDeviation: inverse, inputGradient: over(newDx),
      scaleGradient: nil, shiftGradient: nil)
    return doubles(y, mean, inverse, dx, dscale, dshift, newDx)
  }

  /// Some ten roundings of numbers below 16, in statistics and product alike; with width 3 the
  /// smallest deviation of a row (about 0.1) raises those of the gradient tenfold.
  @Test(arguments: layerNormCases)
  func `modulated LayerNorm and its gradients agree with the slow twin`(test: LayerNormCase) {
    expectAgreement(
      runLayerNorm(Float.self, test), runLayerNorm(Double.self, test),
      absolute: (test.shape.width < 16 ? 1600 : 160) * epsilon, relative: 8 * epsilon, "")
  }

  @Test func `a large mean costs LayerNorm no more than its own rounding`() {
    let shape = ModulationShape(groupCount: 1, rowsPerGroup: 1, width: 64)
    let x: Buffer<Float> = normals(64, 1)
    for i in 0..<64 { x[i] = x[i] + 1000 }
    let y: Buffer<Float> = poisoned(64)
    let (mean, inverse): (Buffer<Float>, Buffer<Float>) = (poisoned(1), poisoned(1))
    Float.modulatedLayerNorm(
      x, scale: nil, shift: nil, scaleOffset: 1, epsilon: 1e-6, shape: shape, into: y, mean: mean,
      inverseDeviation: inverse)
    let exact = x.array.map(Double.init)
    let center = exact.reduce(0, +) / 64
    let deviation = (exact.reduce(0) { $0 + ($1 - center) * ($1 - center) } / 64 + 1e-6)
      .squareRoot()
    // The mean is rounded at 1000: 1000 ε.
    #expect(
      difference(
        y.array.map(Double.init), exact.map { ($0 - center) / deviation },
        absolute: 2000 * epsilon) == nil)
  }

  @Test func `gradients of LayerNorm agree with central differences`() {
    let shape = ModulationShape(groupCount: 2, rowsPerGroup: 3, width: 5)
    let x: Buffer<Double> = normals(30, 1)
    let (scale, shift): (Buffer<Double>, Buffer<Double>) = (normals(10, 2), normals(10, 3))
    let weights: Buffer<Double> = normals(30, 4)
    let y: Buffer<Double> = poisoned(30)
    let (mean, inverse): (Buffer<Double>, Buffer<Double>) = (poisoned(6), poisoned(6))
    func forward(_ inputs: [Buffer<Double>]) -> Buffer<Double> {
      Double.modulatedLayerNorm(
        inputs[0], scale: inputs[1], shift: inputs[2], scaleOffset: 1, epsilon: 1e-3, shape: shape,
        into: y, mean: mean, inverseDeviation: inverse)
      return y
    }
    _ = forward([x, scale, shift])
    let gradients: [Buffer<Double>] = [30, 10, 10].map { startedGradient($0) }
    Double.modulatedLayerNormBackward(
      outputGradient: weights, x: x, scale: scale, scaleOffset: 1, shape: shape, mean: mean,
      inverseDeviation: inverse, inputGradient: added(to: gradients[0]),
      scaleGradient: gradients[1],
      shiftGradient: gradients[2])
    expectGradients(
      gradients.map(withoutStart), at: [x.array, scale.array, shift.array],
      outputWeights: weights.array, forward: forward)
  }

  // MARK: Heads

  private func runHeadNorm<S: KernelScalar>(_: S.Type, _ shape: HeadNormShape, hasGain: Bool)
    -> [[Double]]
  {
    let vectors = shape.sampleCount * shape.tokenCount * shape.headCount
    let count = vectors * shape.headWidth
    let pairs = shape.rotatedCount * shape.headWidth / 2
    let x: Buffer<S> = normals(count, 1)
    let gain: Buffer<S>? = hasGain ? normals(shape.headWidth, 2) : nil
    let (cosines, sines): (Buffer<S>, Buffer<S>) = (normals(pairs, 3), normals(pairs, 4))
    let (y, inverse): (Buffer<S>, Buffer<S>) = (poisoned(count), poisoned(vectors))
    S.headNorm(
      x, gain: gain, cosines: cosines, sines: sines, epsilon: 1e-6, shape: shape, into: y,
      inverseRoot: inverse)
    let (dx, dgain): (Buffer<S>, Buffer<S>) = (
      startedGradient(count), startedGradient(shape.headWidth)
    )
    S.headNormBackward(
      outputGradient: normals(count, 5), x: x, gain: gain, cosines: cosines, sines: sines,
      shape: shape, inverseRoot: inverse, inputGradient: added(to: dx), gainGradient: dgain)
    let newDx: Buffer<S> = poisoned(count)
    S.headNormBackward(
      outputGradient: normals(count, 5), x: x, gain: gain, cosines: cosines, sines: sines,
      shape: shape, inverseRoot: inverse, inputGradient: over(newDx), gainGradient: nil)
    return doubles(y, inverse, dx, dgain, newDx)
  }

  /// A dozen roundings of numbers below 100 (normal gain times normal table), and for the gain a sum
  /// over at most 30 vectors.
  @Test(arguments: [2, 8, 16, 18, 64, 80, 128], [0, 3, 5])
  func `head norm with rotation agrees with the slow twin`(width: Int, rotatedCount: Int) {
    let shape = HeadNormShape(
      sampleCount: 2, tokenCount: 5, headCount: 3, headWidth: width, rotatedCount: rotatedCount)
    for hasGain in [true, false] {
      let slow = runHeadNorm(Double.self, shape, hasGain: hasGain)
      // With two elements a vector may be short, and 1/√ of its square large.
      let amplification = max(1, largestMagnitude(slow[1]))
      expectAgreement(
        runHeadNorm(Float.self, shape, hasGain: hasGain), slow,
        absolute: 600 * amplification * epsilon, relative: 8 * epsilon, "\(shape), \(hasGain)")
    }
  }

  @Test func `gradients of the head norm agree with central differences`() {
    let shape = HeadNormShape(
      sampleCount: 2, tokenCount: 3, headCount: 2, headWidth: 4, rotatedCount: 2)
    let (x, gain): (Buffer<Double>, Buffer<Double>) = (normals(48, 1), normals(4, 2))
    let (cosines, sines): (Buffer<Double>, Buffer<Double>) = (normals(4, 3), normals(4, 4))
    let weights: Buffer<Double> = normals(48, 5)
    let (y, inverse): (Buffer<Double>, Buffer<Double>) = (poisoned(48), poisoned(12))
    func forward(_ inputs: [Buffer<Double>]) -> Buffer<Double> {
      Double.headNorm(
        inputs[0], gain: inputs[1], cosines: cosines, sines: sines, epsilon: 1e-3, shape: shape,
        into: y, inverseRoot: inverse)
      return y
    }
    _ = forward([x, gain])
    let (dx, dgain): (Buffer<Double>, Buffer<Double>) = (startedGradient(48), startedGradient(4))
    Double.headNormBackward(
      outputGradient: weights, x: x, gain: gain, cosines: cosines, sines: sines, shape: shape,
      inverseRoot: inverse, inputGradient: added(to: dx), gainGradient: dgain)
    expectGradients(
      [withoutStart(dx), withoutStart(dgain)], at: [x.array, gain.array],
      outputWeights: weights.array, forward: forward)
  }

  private func runRotation<S: KernelScalar>(
    _: S.Type, headWidth: Int, backwards: Bool
  ) -> [[Double]] {
    let (rows, width) = (4, 3 * headWidth)
    let (sourceStride, targetStride) = (width + 3, width + 5)
    let (cosines, sines): (Buffer<S>, Buffer<S>) = (
      normals(headWidth / 2, 2), normals(headWidth / 2, 3)
    )
    return [false, true].map { accumulating in
      let target: Buffer<S> = normals(rows * targetStride, 4)
      S.rotateRows(
        normals(rows * sourceStride, 1), stride: sourceStride, to: target, stride: targetStride,
        rowCount: rows, width: width, cosines: cosines, sines: sines, backwards: backwards,
        accumulating: accumulating)
      return target.array.map(Double.init)
    }
  }

  /// Four roundings of numbers below 16; what lies between the rows is equal.
  @Test(arguments: [2, 8, 16, 18, 64, 80], [false, true])
  func `rotated rows agree with the slow twin, and nothing between them is touched`(
    headWidth: Int, backwards: Bool
  ) {
    let fast = runRotation(Float.self, headWidth: headWidth, backwards: backwards)
    let slow = runRotation(Double.self, headWidth: headWidth, backwards: backwards)
    expectAgreement(fast, slow, absolute: 64 * epsilon, "\(headWidth)")
    let stride = 3 * headWidth + 5
    let start: [Double] = (normals(4 * stride, 4) as Buffer<Double>).array
    for result in fast {
      for index in result.indices where index % stride >= 3 * headWidth {
        #expect(result[index] == start[index])
      }
    }
  }

  @Test func `rows rotated forth and back are as before, and pairs turn as documented`() {
    let (cosines, sines) = (Buffer([0.6, 0.0]), Buffer([0.8, 1.0]))
    let (turned, back) = (Buffer<Double>(zeroed: 4), Buffer<Double>(zeroed: 4))
    Double.rotateRows(
      Buffer([5, 10, 3, 4]), stride: 4, to: turned, stride: 4, rowCount: 1, width: 4,
      cosines: cosines, sines: sines, backwards: false, accumulating: false)
    // 3 − 8, 6 + 4; a right angle takes (a, b) to (−b, a). Products of 0.6 and 0.8 are rounded.
    #expect(difference(turned.array, [-5, 10, -4, 3], absolute: 4e-15) == nil)
    Double.rotateRows(
      turned, stride: 4, to: back, stride: 4, rowCount: 1, width: 4, cosines: cosines,
      sines: sines, backwards: true, accumulating: false)
    #expect(difference(back.array, [5, 10, 3, 4], absolute: 8e-15) == nil)
  }

  @Test func `a rotation by a right angle moves pairs as documented`() {
    let shape = HeadNormShape(
      sampleCount: 1, tokenCount: 1, headCount: 1, headWidth: 16, rotatedCount: 1)
    let x = Buffer([Float](repeating: 0, count: 16))
    (x[0], x[3]) = (4, 4)  // mean square 2, so 4 becomes 4/√2
    let (y, inverse): (Buffer<Float>, Buffer<Float>) = (poisoned(16), poisoned(1))
    Float.headNorm(
      x, gain: nil, cosines: Buffer<Float>(zeroed: 8),
      sines: Buffer([Float](repeating: 1, count: 8)), epsilon: 0, shape: shape, into: y,
      inverseRoot: inverse)
    let r = 4 * inverse[0]
    #expect(y.array == [0, r, -r] + [Float](repeating: 0, count: 13))
  }
}
