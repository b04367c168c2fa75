import DenseKernels
import TestSupport
import Testing

struct FloatElementwiseTests {
  static let activations: [Activation] = [.geluTanh, .silu, .softplus, .pseudoHuber(c: 0.03)]

  /// A grid over the range where the functions bend, and their far ends.
  static let grid =
    (-4000...4000).map { Float($0) * 0.01 } + [
      -1e6, -300, -100, -89, 0, 1e-20, -1e-6, 89, 100, 1e6,
    ]

  /// e^−2u of a rounded u is off by |2u| ε, but counts only where it is not small against 1: a few ε.
  @Test(arguments: activations)
  func `activations agree with their formulas on a dense grid`(activation: Activation) {
    func run<S: KernelScalar>(_: S.Type) -> [[Double]] {
      let x = Buffer(Self.grid.map(S.init))
      let y: Buffer<S> = poisoned(x.count)
      let dx: Buffer<S> = startedGradient(x.count)
      S.apply(activation, to: x, into: y)
      S.applyBackward(
        activation, outputGradient: normals(x.count, 1), x: x, inputGradient: added(to: dx))
      let newDx: Buffer<S> = poisoned(x.count)
      S.applyBackward(
        activation, outputGradient: normals(x.count, 1), x: x, inputGradient: over(newDx))
      return doubles(y, dx, newDx)
    }
    let (fast, slow) = (run(Float.self), run(Double.self))
    expectAgreement(fast, slow, absolute: 16 * epsilon, relative: 8 * epsilon, "\(activation)")
  }

  @Test(arguments: activations)
  func `derivatives of activations agree with central differences`(activation: Activation) {
    let x = (-30...30).map { Double($0) * 0.173 }
    let weights: Buffer<Double> = normals(x.count, 2)
    let dx: Buffer<Double> = startedGradient(x.count)
    Double.applyBackward(
      activation, outputGradient: weights, x: Buffer(x), inputGradient: added(to: dx))
    // Third derivatives of pseudo-Huber reach 3/c² where x is near c; no grid point but 0 is.
    expectGradients([withoutStart(dx)], at: [x], outputWeights: weights.array) { inputs in
      let y: Buffer<Double> = poisoned(x.count)
      Double.apply(activation, to: inputs[0], into: y)
      return y
    }
  }

  @Test func `NaN stays NaN`() {
    for activation in Self.activations {
      let y = Buffer<Float>(zeroed: 17)
      Float.apply(activation, to: Buffer([Float](repeating: .nan, count: 17)), into: y)
      #expect(y.array.allSatisfy { $0.isNaN }, "\(activation)")
    }
  }

  /// Each result is one or two roundings of exact inputs.
  @Test(arguments: oddSizes)
  func `sums and products of elements agree with the slow twin`(count: Int) {
    func run<S: KernelScalar>(_: S.Type) -> [[Double]] {
      let x: Buffer<S> = normals(count, 1)
      let y: Buffer<S> = normals(count, 2)
      let (combined, product): (Buffer<S>, Buffer<S>) = (poisoned(count), poisoned(count))
      let (sum, added): (Buffer<S>, Buffer<S>) = (normals(count, 3), normals(count, 4))
      S.combine(0.75, x, -1.5, y, into: combined)
      S.multiplyElements(x, y, into: product)
      S.add(-0.25, x, to: sum)
      S.addProduct(x, y, to: added)
      return doubles(combined, product, sum, added)
    }
    expectAgreement(
      run(Float.self), run(Double.self), absolute: 4 * epsilon, relative: 2 * epsilon, "\(count)")
  }

  @Test func `elementwise kernels work in place`() {
    let count = 65
    let (x, y): (Buffer<Float>, Buffer<Float>) = (normals(count, 1), normals(count, 2))
    let apart: Buffer<Float> = poisoned(count)
    Float.combine(2, x, 3, y, into: apart)
    Float.combine(2, x, 3, y, into: x)
    #expect(x.array == apart.array)
    Float.apply(.silu, to: x, into: apart)
    Float.apply(.silu, to: x, into: x)
    #expect(x.array == apart.array)
  }

  @Test(arguments: oddSizes)
  func `results do not depend on alignment`(count: Int) {
    let source: Buffer<Float> = normals(count, 5)
    let expected: Buffer<Float> = poisoned(count)
    Float.apply(.geluTanh, to: source, into: expected)
    for shift in 1..<4 {
      let (moved, result) = (
        Buffer<Float>(zeroed: count + shift)[shift..<(count + shift)],
        Buffer<Float>(zeroed: count + shift)[shift..<(count + shift)]
      )
      moved.copy(from: source)
      Float.apply(.geluTanh, to: moved, into: result)
      #expect(result.array == expected.array, "shift \(shift)")
      #expect(Float.sum(moved) == Float.sum(source), "shift \(shift)")
    }
  }

  @Test(arguments: oddSizes)
  func `the gated residual and its gradients agree with the slow twin`(width: Int) {
    let shape = ModulationShape(groupCount: 2, rowsPerGroup: 5, width: width)
    let count = 10 * width
    func run<S: KernelScalar>(_: S.Type) -> [[Double]] {
      let (x, h): (Buffer<S>, Buffer<S>) = (normals(count, 1), normals(count, 2))
      let gate: Buffer<S> = normals(2 * width, 3)
      let y: Buffer<S> = poisoned(count)
      let (dh, dgate): (Buffer<S>, Buffer<S>) = (startedGradient(count), startedGradient(2 * width))
      S.gatedResidual(x, gate: gate, h: h, shape: shape, into: y)
      S.gatedResidualBackward(
        outputGradient: normals(count, 4), gate: gate, h: h, shape: shape,
        hGradient: added(to: dh), gateGradient: dgate)
      let newDh: Buffer<S> = poisoned(count)
      S.gatedResidualBackward(
        outputGradient: normals(count, 4), gate: gate, h: h, shape: shape, hGradient: over(newDh),
        gateGradient: nil)
      return doubles(y, dh, dgate, newDh)
    }
    // The gradient of the gate sums five products of magnitude below 16.
    expectAgreement(run(Float.self), run(Double.self), absolute: 5 * 16 * epsilon, "\(width)")
  }

  @Test func `gradients of the gated residual agree with central differences`() {
    let shape = ModulationShape(groupCount: 2, rowsPerGroup: 3, width: 5)
    let (gate, h): (Buffer<Double>, Buffer<Double>) = (normals(10, 1), normals(30, 2))
    let weights: Buffer<Double> = normals(30, 3)
    let (dh, dgate): (Buffer<Double>, Buffer<Double>) = (startedGradient(30), startedGradient(10))
    Double.gatedResidualBackward(
      outputGradient: weights, gate: gate, h: h, shape: shape,
      hGradient: added(to: dh), gateGradient: dgate)
    expectGradients(
      [withoutStart(dgate), withoutStart(dh)], at: [gate.array, h.array],
      outputWeights: weights.array
    ) { inputs in
      let y: Buffer<Double> = poisoned(30)
      Double.gatedResidual(normals(30, 9), gate: inputs[0], h: inputs[1], shape: shape, into: y)
      return y
    }
  }
}
