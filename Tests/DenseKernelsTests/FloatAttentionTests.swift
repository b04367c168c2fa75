import DenseKernels
import TestSupport
import Testing

struct FloatAttentionTests {
  private func run<S: KernelScalar>(
    _: S.Type, _ shape: AttentionShape, _ mask: AttentionMask?,
    _ precision: ProductPrecision = .float32
  ) -> [[Double]] {
    let queries = shape.sampleCount * shape.queryCount * shape.headCount * shape.headWidth
    let keys = shape.sampleCount * shape.keyCount * shape.headCount * shape.headWidth
    let (q, k, v): (Buffer<S>, Buffer<S>, Buffer<S>) = (
      normals(queries, 1), normals(keys, 2), normals(keys, 3)
    )
    let output: Buffer<S> = poisoned(queries)
    let logSumExp: Buffer<S> = poisoned(shape.sampleCount * shape.headCount * shape.queryCount)
    S.attention(
      query: q, key: k, value: v, mask: mask, shape: shape, precision: precision, into: output,
      logSumExp: logSumExp)
    let (dq, dk, dv): (Buffer<S>, Buffer<S>, Buffer<S>) = (
      startedGradient(queries), startedGradient(keys), startedGradient(keys)
    )
    S.attentionBackward(
      outputGradient: normals(queries, 4), query: q, key: k, value: v, output: output,
      logSumExp: logSumExp, mask: mask, shape: shape, precision: precision,
      queryGradient: added(to: dq), keyGradient: added(to: dk), valueGradient: added(to: dv))
    let (newDq, newDk, newDv): (Buffer<S>, Buffer<S>, Buffer<S>) = (
      poisoned(queries), poisoned(keys), poisoned(keys)
    )
    S.attentionBackward(
      outputGradient: normals(queries, 4), query: q, key: k, value: v, output: output,
      logSumExp: logSumExp, mask: mask, shape: shape, precision: precision,
      queryGradient: over(newDq), keyGradient: over(newDk), valueGradient: over(newDv))
    return doubles(output, logSumExp, dq, dk, dv, newDq, newDk, newDv)
  }

  /// Scores are sums of K products over √K: off by √K ε times a few; weights follow, and outputs and
  /// gradients are averages or sums over up to L rows of them.
  private func expectAgreement(
    _ shape: AttentionShape, _ mask: AttentionMask? = nil, _ label: String = "",
    location: SourceLocation = #_sourceLocation
  ) {
    let bound = (32 + 4 * Double(shape.headWidth) + 0.5 * Double(shape.queryCount)) * epsilon
    DenseKernelsTests.expectAgreement(
      run(Float.self, shape, mask), run(Double.self, shape, mask), absolute: bound,
      relative: bound, "\(shape) \(label)", location: location)
  }

  @Test(arguments: [1, 7, 64, 129, 300, 520], [8, 16, 64, 128])
  func `attention and its gradients agree with the slow twin`(tokens: Int, width: Int) {
    let isSmall = tokens < 100
    expectAgreement(
      AttentionShape(
        sampleCount: isSmall ? 2 : 1, queryCount: tokens, keyCount: tokens,
        headCount: isSmall ? 3 : 1, headWidth: width))
  }

  /// Weights and score gradients that lie next to the middle between two bfloat16 numbers may be
  /// rounded apart: 2⁻⁸ of their magnitude each, of which sums over keys see an average.
  @Test(arguments: [(7, 8), (129, 64), (300, 128), (700, 16)])
  func `attention on bfloat16 operands agrees with the slow twin`(tokens: Int, width: Int) {
    let shape = AttentionShape(
      sampleCount: 2, queryCount: tokens, keyCount: tokens, headCount: 2, headWidth: width)
    let masks = [
      nil, AttentionMask(visibleKeys: (0..<(2 * tokens)).map { UInt8($0 % 5 == 2 ? 0 : 1) }),
    ]
    for mask in masks {
      let fast = run(Float.self, shape, mask, .bfloat16)
      DenseKernelsTests.expectAgreement(
        fast, run(Double.self, shape, mask, .bfloat16), absolute: 1 / 256, relative: 1 / 256,
        "\(shape)")
      #expect(fast != run(Float.self, shape, mask, .float32))
    }
  }

  /// Such heads take the way of CPUs without AVX-512.
  @Test func `heads wider than a packed row agree with the slow twin`() {
    let visible = (0..<600).map { UInt8($0 % 3 == 1 ? 0 : 1) }
    let shape = AttentionShape(
      sampleCount: 2, queryCount: 250, keyCount: 300, headCount: 1, headWidth: 260)
    for mask in [nil, AttentionMask(visibleKeys: visible)] { expectAgreement(shape, mask) }
    let wide = AttentionShape(
      sampleCount: 1, queryCount: 250, keyCount: 300, headCount: 1, headWidth: 520)
    DenseKernelsTests.expectAgreement(
      run(Float.self, wide, nil, .bfloat16), run(Double.self, wide, nil, .bfloat16),
      absolute: 1 / 256, relative: 1 / 256, "\(wide)")
  }

  @Test func `queries and keys may differ in number`() {
    for (queryCount, keyCount) in [(3, 40), (130, 5), (1, 600), (200, 1025)] {
      expectAgreement(
        AttentionShape(
          sampleCount: 2, queryCount: queryCount, keyCount: keyCount, headCount: 2, headWidth: 16))
    }
  }

  @Test func `masks with every kind of tile agree with the slow twin`() {
    let shape = AttentionShape(
      sampleCount: 5, queryCount: 150, keyCount: 1100, headCount: 2, headWidth: 8)
    func keys(_ isVisible: (Int) -> Bool) -> [UInt8] { (0..<1100).map { isVisible($0) ? 1 : 0 } }
    let visible =
      keys { _ in true } + keys { $0 == 700 } + keys { $0 >= 512 } + keys { $0 % 3 == 0 }
      + keys { $0 < 513 }
    expectAgreement(shape, AttentionMask(visibleKeys: visible), "keys")
    let isolated = (0..<750).map { UInt8($0 % 7 == 3 ? 1 : 0) }
    expectAgreement(
      shape, AttentionMask(visibleKeys: visible, isolatedQueries: isolated), "isolated")
  }

  @Test func `an isolated query sees key 0 alone, even a hidden one`() {
    let shape = AttentionShape(
      sampleCount: 1, queryCount: 2, keyCount: 3, headCount: 1, headWidth: 8)
    let mask = AttentionMask(visibleKeys: [0, 1, 1], isolatedQueries: [0, 1])
    let value: Buffer<Float> = normals(24, 3)
    let (output, logSumExp): (Buffer<Float>, Buffer<Float>) = (poisoned(16), poisoned(2))
    Float.attention(
      query: normals(16, 1), key: normals(24, 2), value: value, mask: mask, shape: shape,
      precision: .float32, into: output, logSumExp: logSumExp)
    #expect(output[8..<16].array == value[0..<8].array)
    expectAgreement(shape, mask)
  }

  @Test func `a query without any key gives zero and no gradient`() {
    let shape = AttentionShape(
      sampleCount: 2, queryCount: 3, keyCount: 4, headCount: 1, headWidth: 8)
    let mask = AttentionMask(visibleKeys: [0, 0, 0, 0, 1, 1, 1, 1])
    let outputs = run(Float.self, shape, mask)
    #expect(outputs[0][..<24].allSatisfy { $0 == 0 })
    #expect(outputs[1][..<3].allSatisfy { $0 == -.infinity })
    for (gradients, start) in [(outputs[2..<5], Double(gradientStart)), (outputs[5...], 0)] {
      for gradient in gradients {
        #expect(gradient[..<24].allSatisfy { $0 == start })
        #expect(gradient[24...].contains { $0 != start })
      }
    }
    expectAgreement(shape, mask)
  }

  @Test func `large scores neither overflow nor lose the largest`() {
    let shape = AttentionShape(
      sampleCount: 1, queryCount: 1, keyCount: 600, headCount: 1, headWidth: 4)
    let key = Buffer<Float>(zeroed: 2400)
    for j in 0..<600 { key[4 * j] = Float(j) }
    let value: Buffer<Float> = normals(2400, 1)
    let (output, logSumExp): (Buffer<Float>, Buffer<Float>) = (poisoned(4), poisoned(1))
    Float.attention(
      query: Buffer([400, 0, 0, 0]), key: key, value: value, mask: nil, shape: shape,
      precision: .float32, into: output, logSumExp: logSumExp)
    // Scores are 200 j: the last key has all the weight.
    #expect(output.array == value[2396..<2400].array)
    #expect(logSumExp[0] == 200 * 599)
  }

  @Test func `two runs give equal bits`() {
    let shape = AttentionShape(
      sampleCount: 2, queryCount: 300, keyCount: 520, headCount: 2, headWidth: 64)
    #expect(run(Float.self, shape, nil) == run(Float.self, shape, nil))
  }

  @Test func `gradients of attention agree with central differences`() {
    let shape = AttentionShape(
      sampleCount: 2, queryCount: 3, keyCount: 4, headCount: 2, headWidth: 3)
    let masks = [
      nil, AttentionMask(visibleKeys: [1, 1, 0, 1, 0, 1, 0, 0]),
      AttentionMask(visibleKeys: [1, 1, 0, 1, 0, 1, 1, 0], isolatedQueries: [0, 1, 0, 0, 0, 1]),
    ]
    for mask in masks {
      let inputs: [Buffer<Double>] = [normals(36, 1), normals(48, 2), normals(48, 3)]
      let weights: Buffer<Double> = normals(36, 4)
      let (output, logSumExp): (Buffer<Double>, Buffer<Double>) = (poisoned(36), poisoned(12))
      func forward(_ inputs: [Buffer<Double>]) -> Buffer<Double> {
        Double.attention(
          query: inputs[0], key: inputs[1], value: inputs[2], mask: mask, shape: shape,
          precision: .float32, into: output, logSumExp: logSumExp)
        return output
      }
      _ = forward(inputs)
      let gradients: [Buffer<Double>] = inputs.map { startedGradient($0.count) }
      Double.attentionBackward(
        outputGradient: weights, query: inputs[0], key: inputs[1], value: inputs[2],
        output: output, logSumExp: logSumExp, mask: mask, shape: shape,
        precision: .float32, queryGradient: added(to: gradients[0]),
        keyGradient: added(to: gradients[1]), valueGradient: added(to: gradients[2]))
      expectGradients(
        gradients.map(withoutStart), at: inputs.map(\.array), outputWeights: weights.array,
        forward: forward)
    }
  }
}
