import Autodiff
import DenseKernels
import Diffusion
import Tensors
import TestSupport
import Testing

struct ObjectiveTests {
  private let bench = Bench<Double>()

  // MARK: T4, the critic's floor

  @Test func `the exact velocity has the least loss, the posterior variance of the target`() {
    let (g, t, count) = (2.0, 0.5, 1_000_000)
    let clean = bench.tensor(bench.normals([count], 0).array.map { g * $0 }, [1, count])
    let noise = bench.normals([1, count], 1)
    let noisy = FlowMatching.noised(
      clean, noise: noise, times: [t], in: bench.arena, booking: bench.booking)
    func loss(_ deviation: Double) -> Double {
      let tape = bench.tape()
      let velocity = GaussianDenoiser(deviation: deviation)
        .velocity(of: Value(constant: noisy), times: [t], on: tape)
      return FlowMatchingObjective().evaluate(
        prediction: velocity, clean: clean, noise: noise, on: tape
      ).loss
    }
    let floor = g * g / GaussianDenoiser(deviation: g).variance(at: t)
    #expect(abs(floor - 3.2) < 1e-14)
    // The residual is normal: its square has deviation √2 · 3.2, 4.5e-3 over a million.
    #expect(abs(loss(g) - floor) < 4 * 4.6e-3)
    #expect(loss(1.8) > loss(g) && loss(2.2) > loss(g))
  }

  // MARK: T5, the rank of the adapter

  /// Element (row, column) of Sylvester's Hadamard matrix: its columns are exactly orthogonal.
  private func hadamard(_ row: Int, _ column: Int) -> Double {
    (row & column).nonzeroBitCount.isMultiple(of: 2) ? 1 : -1
  }

  /// The least loss, summed over dimensions, that descent on a rank-r update of W reaches.
  private func trainedLoss(rank: Int) -> (loss: Double, product: [Double]) {
    let (rows, width, t) = (16, 6, 0.5)
    let deviations = [2.0, 2, 1, 1, 1, 1]
    // 16 samples whose second moments are those of data and noise exactly.
    let clean = bench.tensor(
      (0..<(rows * width)).map { deviations[$0 % width] * hadamard($0 / width, 1 + $0 % width) },
      [rows, width])
    let noise = bench.tensor(
      (0..<(rows * width)).map { hadamard($0 / width, 7 + $0 % width) }, [rows, width])
    let times = Array(repeating: t, count: rows)
    let noisy = FlowMatching.noised(
      clean, noise: noise, times: times, in: bench.arena, booking: bench.booking)
    // W of the real data, N(0, 1) at t = 1/2, is zero.
    let base = ParameterSet<Double>(
      [ParameterSpecification("W", [width, width], .zeros)], in: bench.arena, role: .base)
    let factors = ParameterSet<Double>(
      [
        ParameterSpecification("A", [rank, width], .uniform(bound: 0.4)),
        ParameterSpecification("B", [width, rank], .zeros),
      ], in: bench.arena, role: .fake)
    factors.initialize(seed: 5)
    let gradients = Buffer<Double>(zeroed: factors.layout.count)
    factors.bindGradients(to: gradients)
    let fake = LinearDenoiser(
      matrix: base["W"],
      update: LowRankUpdate(down: factors["A"], up: factors["B"], scale: 1))
    var loss = 0.0
    for _ in 0..<1_500 {
      gradients.fill(with: 0)
      let tape = bench.tape()
      let velocity = fake.velocity(of: Value(constant: noisy), times: times, on: tape)
      let term = FlowMatchingObjective().evaluate(
        prediction: velocity, clean: clean, noise: noise, on: tape)
      ObjectiveTerm.backward([(1, term)], on: tape)
      loss = term.loss
      Double.add(-0.3, gradients, to: factors.values)
    }
    let product = bench.tensor(Array(repeating: 0, count: width * width), [width, width])
    Double.multiply(
      Matrix(factors["B"].value.buffer, rows: width, columns: rank),
      Matrix(factors["A"].value.buffer, rows: rank, columns: width), scale: 1,
      accumulating: false, into: Matrix(product.buffer, rows: width, columns: width))
    return (loss * Double(width), product.array)
  }

  @Test func `a critic of rank two reaches the floor and one of rank one stays above by 1.8`() {
    // Floors s²/V: two dimensions of 4/1.25 and four of 1/0.5.
    let floor = 2 * 3.2 + 4 * 2
    let two = trainedLoss(rank: 2)
    // Descent has converged to rounding.
    #expect(abs(two.loss - floor) < 1e-9)
    let diagonal = (0..<36).map { $0 % 7 == 0 && $0 < 14 ? -1.2 : 0 }
    #expect(difference(two.product, diagonal, absolute: 1e-5) == nil)
    #expect(abs(trainedLoss(rank: 1).loss - (floor + 1.8)) < 1e-9)
  }

  // MARK: Mechanics

  @Test func `the flow-matching gradient is that of differences`() {
    let (clean, noise) = (bench.normals([2, 3], 0), bench.normals([2, 3], 1))
    let prediction = bench.normals([2, 3], 2)
    func term() -> ObjectiveTerm<Double> {
      FlowMatchingObjective().evaluate(
        prediction: Value(constant: prediction), clean: clean, noise: noise, on: bench.tape())
    }
    let gradient = term().gradient.array
    for index in 0..<6 {
      let kept = prediction.buffer[index]
      prediction.buffer[index] = kept + 1e-4
      let above = term().loss
      prediction.buffer[index] = kept - 1e-4
      let below = term().loss
      prediction.buffer[index] = kept
      // The loss is quadratic: central differences are exact up to ε/h.
      #expect(abs((above - below) / 2e-4 - gradient[index]) < 1e-11)
    }
    var byHand = 0.0
    for index in 0..<6 {
      let u = noise.array[index] - clean.array[index]
      byHand += (prediction.array[index] - u) * (prediction.array[index] - u) / 6
    }
    #expect(abs(term().loss - byHand) < 1e-14)
  }

  @Test func `terms are differentiated with their weights, also two on one value`() {
    let tape = bench.tape()
    let (x, y) = (tape.input(bench.normals([2], 0)), tape.input(bench.normals([2], 1)))
    let untouched = tape.input(bench.normals([2], 2))
    func term(_ value: Value<Double>, _ gradient: [Double]) -> ObjectiveTerm<Double> {
      ObjectiveTerm(loss: 1, value: value, gradient: bench.tensor(gradient, [2]))
    }
    let (first, second) = (term(x, [1, 2]), term(x, [4, 8]))
    ObjectiveTerm.backward(
      [
        (1, first), (0.25, second), (-2, term(y, [1, 3])), (0, term(y, [.nan, .infinity])),
        (0, term(untouched, [1, 1])),
      ], on: tape)
    #expect(tape.gradient(of: x)?.array == [2, 4])
    #expect(tape.gradient(of: y)?.array == [-2, -6])
    #expect(tape.gradient(of: untouched) == nil)
    // The terms themselves are not scaled in place.
    #expect(first.gradient.array == [1, 2] && second.gradient.array == [4, 8])
  }

  @Test func `a term weighs as much as its weight says through a network`() {
    let set = ParameterSet<Double>(
      [ParameterSpecification("W", [3, 3], .normal(deviation: 1))], in: bench.arena,
      role: .generator)
    set.initialize(seed: 2)
    let (clean, noise) = (bench.normals([2, 3], 0), bench.normals([2, 3], 1))
    func gradient(_ weights: [Double]) -> [Double] {
      let gradients = Buffer<Double>(zeroed: set.layout.count)
      set.bindGradients(to: gradients)
      let tape = bench.tape()
      let prediction = LinearDenoiser(matrix: set["W"])
        .velocity(of: Value(constant: noise), times: [1, 1], on: tape)
      let term = FlowMatchingObjective().evaluate(
        prediction: prediction, clean: clean, noise: noise, on: tape)
      ObjectiveTerm.backward(weights.map { ($0, term) }, on: tape)
      return gradients.array
    }
    let once = gradient([1])
    #expect(once.contains { $0 != 0 })
    #expect(gradient([0.5, 0.5]) == once)
    #expect(gradient([-2]) == once.map { -2 * $0 })
    #expect(gradient([0]).allSatisfy { $0 == 0 })
  }
}
