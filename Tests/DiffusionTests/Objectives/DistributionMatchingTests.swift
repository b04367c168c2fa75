import Autodiff
import DenseKernels
import Diffusion
import Foundation
import Tensors
import TestSupport
import Testing

struct DistributionMatchingTests {
  private let bench = Bench<Double>()
  private let matching = DistributionMatching()

  /// One sample's evaluation, with the pull x_F − x_R that the normalizer was taken off again.
  private struct Evaluation {
    let result: DistributionMatching.Result<Double>
    /// g.
    let direction: [Double]
    /// x_F − x_R.
    let pull: [Double]
  }

  private func evaluate(
    _ x: [Double], noise: Tensor<Double>, time: Double, fake: some Denoiser<Double>,
    real: some Denoiser<Double>
  ) -> Evaluation {
    let tape = bench.tape()
    let result = matching.evaluate(
      generated: tape.input(bench.tensor(x, [1, x.count])), noise: noise, times: [time],
      fake: fake, real: real, on: tape)
    let direction = result.term.gradient.array.map { $0 * Double(x.count) }
    return Evaluation(
      result: result, direction: direction, pull: direction.map { $0 * result.meanDistance })
  }

  // MARK: T1, mean shift

  /// E|X| of X ~ N(mean, deviation²).
  private func meanMagnitude(_ mean: Double, _ deviation: Double) -> Double {
    deviation * (2 / Double.pi).squareRoot()
      * exp(-mean * mean / (2 * deviation * deviation))
      + mean * erf(mean / (deviation * Double(2).squareRoot()))
  }

  @Test func `a mean shift pulls every point alike, as far as the specification says`() {
    let (t, s, realMean, fakeMean) = (0.6, 0.8, 1.0, 3.0)
    let count = 400_000
    let x = bench.normals([count], 0).array.map { fakeMean + s * $0 }
    let evaluation = evaluate(
      x, noise: bench.normals([1, count], 1), time: t,
      fake: GaussianDenoiser(mean: fakeMean, deviation: s),
      real: GaussianDenoiser(mean: realMean, deviation: s))
    // Printed with seven digits; the rest is rounding.
    #expect(
      difference(evaluation.pull, Array(repeating: 1.557093, count: count), absolute: 5.1e-7)
        == nil)
    // |x − x_R| has deviation 0.67 here: a standard error of 1.06e-3 over the elements.
    #expect(abs(evaluation.result.meanDistance - 1.563878) < 4 * 1.06e-3)
    #expect(abs(evaluation.direction[0] - 0.995661) < 4 * 1.06e-3)
    let v = (1 - t) * (1 - t) * s * s + t * t
    #expect(abs(meanMagnitude(t * t / v * 2, t * s / v.squareRoot()) - 1.563878) < 5.1e-7)
    // The mean of g² / 2 over equal elements.
    let g = evaluation.direction[0]
    #expect(abs(evaluation.result.term.loss - g * g / 2) < 1e-9)
    #expect(evaluation.result.nonFiniteCount == 0)
  }

  @Test func `the pull saturates far away and is linear near by`() {
    let (t, s, count) = (0.6, 0.8, 100_000)
    let v = (1 - t) * (1 - t) * s * s + t * t
    func direction(_ shift: Double) -> Double {
      evaluate(
        bench.normals([count], 0).array.map { shift + s * $0 },
        noise: bench.normals([1, count], 1), time: t,
        fake: GaussianDenoiser(mean: shift, deviation: s), real: GaussianDenoiser(deviation: s)
      ).direction[0]
    }
    // n deviates from μ = 78 by a standard error of 0.7/√count.
    #expect(abs(direction(100) - 1) < 4 * 3e-5)
    let near = (Double.pi / 2).squareRoot() * t * 1e-3 / (s * v.squareRoot())
    // The mean magnitude of a normal has a relative standard error of 0.756/√count.
    #expect(abs(direction(1e-3) / near - 1) < 4 * 2.4e-3)
    #expect(direction(-1e-3) < 0)
  }

  // MARK: T2, scale mismatch

  @Test func `the expected pull on a scale is the gradient of the divergence`() {
    let count = 1_000_000
    let z = bench.normals([count], 0).array
    let noise = bench.normals([1, count], 1)
    for (t, g, real, printed) in [(0.5, 2.0, 1.0, 0.6 as Double?), (0.3, 0.7, 1.4, nil)] {
      let fake = GaussianDenoiser(deviation: g)
      let evaluation = evaluate(
        z.map { g * $0 }, noise: noise, time: t, fake: fake,
        real: GaussianDenoiser(deviation: real))
      let estimate = Estimate(zip(evaluation.pull, z).map { $0 * $1 })
      let vf = fake.variance(at: t)
      let vr = GaussianDenoiser(deviation: real).variance(at: t)
      let rest = (1 - t) * (1 - t)
      let expected = t * t * rest * g * (g * g - real * real) / (vf * vr)
      if let printed { #expect(abs(expected - printed) < 1e-12) }
      #expect(estimate.agrees(with: expected), "\(estimate) against \(expected)")

      // KL(N(0,V_f) ‖ N(0,V_r)) = (V_f/V_r − 1 − ln V_f/V_r) / 2, differentiated by differences.
      func divergence(_ g: Double) -> Double {
        let ratio = GaussianDenoiser(deviation: g).variance(at: t) / vr
        return (ratio - 1 - log(ratio)) / 2
      }
      let slope = (divergence(g + 1e-5) - divergence(g - 1e-5)) / 2e-5
      // Step 1e-5: h² f‴ and ε f / h are both below 1e-9.
      #expect(abs(rest / (t * t) * expected - slope) < 1e-8)
    }
  }

  @Test(arguments: [0.4, 2.5])
  func `descent with an exact critic ends at the real scale`(start: Double) {
    let count = 2_000
    let z = bench.normals([count], 0).array
    let noise = bench.normals([1, count], 1)
    var g = start
    for _ in 0..<100 {
      let evaluation = evaluate(
        z.map { g * $0 }, noise: noise, time: 0.5, fake: GaussianDenoiser(deviation: g),
        real: GaussianDenoiser())
      let gradient = evaluation.result.term.gradient.array
      g -= 0.5 * zip(gradient, z).reduce(0) { $0 + $1.0 * $1.1 }
    }
    // Near the end each step leaves about 0.56 of the error.
    #expect(abs(g - 1) < 1e-9)
  }

  // MARK: T3, weak to strong

  @Test func `a weak share shortens the pull by the printed amounts`() {
    let count = 400_000
    let x = bench.normals([count], 0).array.map { 3 + 0.8 * $0 }
    let noise = bench.normals([1, count], 1)
    let real = GaussianDenoiser(mean: 1, deviation: 0.8)
    let fake = GaussianDenoiser(mean: 3, deviation: 0.8)
    func at(_ share: Double) -> Evaluation {
      evaluate(
        x, noise: noise, time: 0.6, fake: fake,
        real: BlendedDenoiser(first: real, second: fake, share: share))
    }
    let weak = at(0.25)
    #expect(
      difference(weak.pull, Array(repeating: 1.167820, count: count), absolute: 5.1e-7) == nil)
    // |x − x_R| has deviation 0.63 here.
    #expect(abs(weak.result.meanDistance - 1.196648) < 4 * 1.0e-3)
    #expect(abs(weak.direction[0] - 0.97591) < 4 * 0.9e-3)
    #expect(
      at(0).direction
        == evaluate(x, noise: noise, time: 0.6, fake: fake, real: real).direction)
    #expect(at(1).direction.allSatisfy { $0 == 0 })
  }

  @Test func `a network affine in its adapter shortens the pull by one minus the ratio`() {
    let set = ParameterSet<Double>(
      [
        ParameterSpecification("W", [5, 5], .normal(deviation: 0.4)),
        ParameterSpecification("A", [2, 5], .normal(deviation: 0.5)),
        ParameterSpecification("B", [5, 2], .normal(deviation: 0.5)),
      ], in: bench.arena, role: .base)
    set.initialize(seed: 4)
    func role(_ weight: Double?) -> LinearDenoiser {
      LinearDenoiser(
        matrix: set["W"],
        update: weight.map { LowRankUpdate(down: set["A"], up: set["B"], scale: $0) })
    }
    let x = bench.normals([5], 0).array
    let noise = bench.normals([1, 5], 1)
    for strong in [1.0, 0.6] {
      let plain = evaluate(x, noise: noise, time: 0.7, fake: role(strong), real: role(nil))
      for weak in [0, 0.25, 0.5] {
        let shifted = evaluate(x, noise: noise, time: 0.7, fake: role(strong), real: role(weak))
        let ratio = weak / strong
        // Equation 17; a few roundings of numbers below 10.
        #expect(
          difference(shifted.pull, plain.pull.map { (1 - ratio) * $0 }, absolute: 2e-14) == nil)
      }
      let same = evaluate(x, noise: noise, time: 0.7, fake: role(strong), real: role(strong))
      #expect(same.direction.allSatisfy { $0 == 0 })
      #expect(
        evaluate(x, noise: noise, time: 0.7, fake: role(strong), real: role(0)).direction
          == plain.direction)
    }
  }

  // MARK: T6, guidance

  @Test func `with guidance the fixed point overshoots the conditional mean`() {
    let (conditional, null, scale, t) = (1.0, 0.25, 3.5, 0.4)
    let overshoot = conditional + (scale - 1) * (conditional - null)
    let real = GuidedDenoiser<Double>(
      conditional: GaussianDenoiser(mean: conditional, deviation: 0.8),
      unconditional: GaussianDenoiser(mean: null, deviation: 0.8), scale: scale)
    let noise = bench.normals([1, 50], 1)
    func pull(_ mean: Double) -> [Double] {
      evaluate(
        bench.normals([50], 0).array.map { mean + 0.8 * $0 }, noise: noise, time: t,
        fake: GaussianDenoiser(mean: mean, deviation: 0.8), real: real
      ).pull
    }
    #expect(difference(pull(overshoot), Array(repeating: 0, count: 50), absolute: 1e-13) == nil)
    #expect(pull(overshoot - 0.1).allSatisfy { $0 < 0 })
    #expect(pull(overshoot + 0.1).allSatisfy { $0 > 0 })
    #expect(pull(conditional).allSatisfy { $0 < 0 })
  }

  // MARK: T7, the ground-truth term

  /// x_F − x_gt, the normalizer of (18) taken off again.
  private func truthPull(
    _ x: [Double], truth: [Double], noise: Tensor<Double>, time: Double, fakeDeviation: Double
  ) -> [Double] {
    let fake = GaussianDenoiser(deviation: fakeDeviation)
    let evaluation = evaluate(x, noise: noise, time: time, fake: fake, real: GaussianDenoiser())
    let tape = bench.tape()
    let term = matching.groundTruth(
      generated: tape.input(bench.tensor(x, [1, x.count])),
      fakeEstimate: evaluation.result.fakeEstimate, truth: bench.tensor(truth, [1, x.count]),
      on: tape)
    let distance = zip(x, truth).reduce(0) { $0 + abs($1.0 - $1.1) } / Double(x.count)
    return term.gradient.array.map { $0 * Double(x.count) * distance }
  }

  @Test func `an unpaired ground truth shrinks the spread`() {
    let count = 400_000
    let z = bench.normals([count], 0).array
    let truth = bench.normals([count], 1).array
    let noise = bench.normals([1, count], 2)
    for (t, g) in [(0.5, 1.5), (0.2, 0.6)] {
      let pull = truthPull(
        z.map { g * $0 }, truth: truth, noise: noise, time: t, fakeDeviation: g)
      let v = GaussianDenoiser(deviation: g).variance(at: t)
      let expected = (1 - t) * (1 - t) * g * g * g / v
      #expect(expected > 0)
      #expect(Estimate(zip(pull, z).map { $0 * $1 }).agrees(with: expected))
    }
  }

  /// a V(τ) (1 − t)² g² / V_f(t) − (1 − τ), s = 1, and g² = a² V(τ): zero where generator a·y rests.
  private func pairedGradient(_ a: Double, tau: Double, t: Double) -> Double {
    let v = GaussianDenoiser().variance(at: tau)
    let g = a * v.squareRoot()
    let fake = GaussianDenoiser(deviation: g).variance(at: t)
    return a * v * (1 - t) * (1 - t) * g * g / fake - (1 - tau)
  }

  /// Where the mean over `times` of that gradient vanishes; it grows with a.
  private func restingPoint(tau: Double, times: [Double]) -> Double {
    var (low, high) = (0.0, 100.0)
    for _ in 0..<60 {
      let a = (low + high) / 2
      let mean = times.reduce(0) { $0 + pairedGradient(a, tau: tau, t: $1) } / Double(times.count)
      if mean < 0 { low = a } else { high = a }
    }
    return (low + high) / 2
  }

  @Test(arguments: [(1.0, 0.0), (0.9375, 0.272), (5.0 / 6, 0.533), (0.625, 1.020)])
  func `a paired ground truth rests at the printed deviation`(tau: Double, printed: Double) {
    let v = GaussianDenoiser().variance(at: tau)
    // The printed numbers are those of t uniform on all of [0, 1]; without the outer fiftieths the
    // first two would be 0.279 and 0.538.
    let times = (0..<2_000).map { (Double($0) + 0.5) / 2_000 }
    let deviation = restingPoint(tau: tau, times: times) * v.squareRoot()
    // Three printed digits.
    #expect(abs(deviation - printed) < 5.1e-4)
    // t → 0 gives the regression coefficient.
    #expect(abs(restingPoint(tau: tau, times: [1e-9]) - (1 - tau) / v) < 1e-6)
  }

  @Test func `the ground-truth term has that resting point`() {
    let (tau, t, count) = (5.0 / 6, 0.35, 400_000)
    let a = restingPoint(tau: tau, times: [t])
    let truth = bench.normals([count], 0).array
    let epsilon = bench.normals([count], 1).array
    let y = zip(truth, epsilon).map { (1 - tau) * $0 + tau * $1 }
    let noise = bench.normals([1, count], 2)
    let v = GaussianDenoiser().variance(at: tau)
    for factor in [1, 0.8, 1.25] {
      let pull = truthPull(
        y.map { factor * a * $0 }, truth: truth, noise: noise, time: t,
        fakeDeviation: factor * a * v.squareRoot())
      let estimate = Estimate(zip(pull, y).map { $0 * $1 })
      #expect(estimate.agrees(with: pairedGradient(factor * a, tau: tau, t: t)))
      if factor == 1 { #expect(estimate.agrees(with: 0)) }
      if factor > 1 { #expect(estimate.mean > 8 * estimate.standardError) }
      if factor < 1 { #expect(estimate.mean < -8 * estimate.standardError) }
    }
  }

  // MARK: Mechanics

  @Test func `the gradient is that of the surrogate loss by autodiff`() {
    let x = bench.normals([3, 8], 0)
    let tape = bench.tape()
    let result = matching.evaluate(
      generated: tape.input(x), noise: bench.normals([3, 8], 1), times: [0.1, 0.5, 0.9],
      fake: GaussianDenoiser(mean: 2), real: GaussianDenoiser(deviation: 0.5), on: tape)
    // 0.5 mean (x − sg[x − g])², built of operations.
    let other = bench.tape()
    let leaf = other.input(x)
    let target = zip(x.array, result.term.gradient.array).map { $0 - 24 * $1 }
    let residual = other.combine(1, leaf, -1, Value(constant: bench.tensor(target, [3, 8])))
    let square = other.multiply(residual, residual)
    other.backward([
      (square, bench.tensor(Array(repeating: 0.5 / 24, count: 24), [3, 8]))
    ])
    // x − (x − g) has lost up to an ulp of x, which is below 4.
    #expect(
      difference(
        result.term.gradient.array, other.gradient(of: leaf)?.array ?? [], absolute: 1e-15) == nil)
    let loss = square.tensor.array.reduce(0, +) * 0.5 / 24
    #expect(abs(result.term.loss - loss) < 1e-13)
  }

  @Test func `a batch is the mean of its samples, bit by bit`() {
    let (x, noise) = (bench.normals([4, 9], 0), bench.normals([4, 9], 1))
    let truth = bench.normals([4, 9], 2)
    let times = [0.1, 0.4, 0.7, 0.95]
    func terms(_ range: Range<Int>) -> [ObjectiveTerm<Double>] {
      let tape = bench.tape()
      let generated = tape.input(x.rows(range))
      let result = matching.evaluate(
        generated: generated, noise: noise.rows(range), times: Array(times[range]),
        fake: GaussianDenoiser(mean: 1, deviation: 2), real: GaussianDenoiser(deviation: 0.5),
        on: tape)
      return [
        result.term,
        matching.groundTruth(
          generated: generated, fakeEstimate: result.fakeEstimate, truth: truth.rows(range),
          on: tape),
      ]
    }
    let together = terms(0..<4)
    for split in [[0..<1, 1..<2, 2..<3, 3..<4], [0..<2, 2..<4]] {
      let parts = split.map(terms)
      for index in 0..<2 {
        // Dividing by a power of two is exact.
        #expect(
          together[index].gradient.array
            == parts.flatMap { $0[index].gradient.array }.map { $0 / Double(split.count) })
        let mean = parts.reduce(0) { $0 + $1[index].loss } / Double(split.count)
        #expect(abs(together[index].loss - mean) <= 1e-15 * mean * 36)
      }
    }
  }

  @Test func `what is not finite is counted and set to zero, and leaves other samples alone`() {
    let x = bench.normals([2, 4], 0)
    let noise = bench.normals([2, 4], 1)
    func run(_ x: Tensor<Double>) -> DistributionMatching.Result<Double> {
      let tape = bench.tape()
      return matching.evaluate(
        generated: tape.input(x), noise: noise, times: [0.5, 0.5],
        fake: GaussianDenoiser(mean: 1), real: GaussianDenoiser(), on: tape)
    }
    let healthy = run(x).term.gradient.array
    let broken = x.copied(in: bench.arena, booking: bench.booking)
    broken.buffer[1] = .nan
    let result = run(broken)
    #expect(result.nonFiniteCount == 4)
    #expect(result.term.gradient.array == [0, 0, 0, 0] + healthy[4...])
    #expect(result.term.loss.isFinite)
  }

  @Test func `both scores see the same noised sample, at each sample's time, and record nothing`() {
    let fake = SpyDenoiser(GaussianDenoiser(mean: 1))
    let real = SpyDenoiser(GaussianDenoiser())
    let (x, noise) = (bench.normals([2, 3], 0), bench.normals([2, 3], 1))
    let tape = bench.tape()
    let result = matching.evaluate(
      generated: tape.input(x), noise: noise, times: [0.25, 1], fake: fake, real: real, on: tape)
    for spy in [fake, real] {
      #expect(spy.calls.count == 1)
      #expect(spy.calls[0].times == [0.25, 1] && !spy.calls[0].isRecording)
      let rows = zip(x.array[..<3], noise.array[..<3]).map { 0.75 * $0 + 0.25 * $1 }
      #expect(difference(Array(spy.calls[0].noisy[..<3]), rows, absolute: 1e-15) == nil)
      #expect(Array(spy.calls[0].noisy[3...]) == Array(noise.array[3...]))
    }
    // Equal spread: x_F is the fake mean plus half of what remains, at the known gain.
    let gain = 0.75 / (0.75 * 0.75 + 0.0625)
    let expected = fake.calls[0].noisy[..<3].map { 1 + gain * ($0 - 0.75) }
    #expect(difference(Array(result.fakeEstimate[..<3]), expected, absolute: 1e-14) == nil)
  }
}
