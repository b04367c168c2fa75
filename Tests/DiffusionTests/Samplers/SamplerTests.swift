import Autodiff
import Diffusion
import Foundation
import Tensors
import TestSupport
import Testing

struct SamplerTests {
  private static func euler(
    _ noise: Tensor<Double>, _ denoiser: some Denoiser<Double>, stepCount: Int, shift: Double,
    bench: Bench<Double>
  ) -> [Double] {
    Sampler(schedule: SamplingSchedule(stepCount: stepCount, shift: shift), rule: .euler)
      .sample(from: noise, denoiser: denoiser, on: bench.tape(recording: false)) { _ in
        preconditionFailure("Euler steps draw no noise")
      }.array
  }

  /// T8: final deviation over true deviation, s = 1, as the specification prints them.
  static let factors: [(stepCount: Int, shift: Double, factor: Double)] = [
    (1, 5, 0), (4, 5, 0.47932), (4, 1, 0.72), (4, 7, 0.37826), (28, 5, 0.91298), (50, 7, 0.93594),
  ]

  @Test(arguments: factors)
  func `Euler steps shrink a Gaussian by the factors of the specification`(
    stepCount: Int, shift: Double, factor: Double
  ) {
    let bench = Bench<Double>()
    let noise = bench.normals([2, 40], 0)
    let mean = 1.5
    let sample = Self.euler(
      noise, GaussianDenoiser(mean: mean), stepCount: stepCount, shift: shift, bench: bench)
    // The map is affine in the noise; the factor is printed with five digits.
    for (x, epsilon) in zip(sample, noise.array) where abs(epsilon) > 0.1 {
      #expect(abs((x - mean) / epsilon - factor) <= 5.1e-6)
    }
  }

  @Test func `one exact Euler step returns the mean`() {
    let bench = Bench<Double>()
    let noise = bench.normals([2, 40], 0)
    let sample = Self.euler(
      noise, GaussianDenoiser(mean: -2, deviation: 3), stepCount: 1, shift: 7, bench: bench)
    #expect(difference(sample, Array(repeating: -2, count: 80), absolute: 4e-15) == nil)
  }

  @Test(arguments: [1.0, 3, 7], [1, 2, 7, 50])
  func `on a straight path any Euler steps lead to the clean sample`(shift: Double, stepCount: Int)
  {
    let bench = Bench<Double>()
    let (clean, noise) = (bench.normals([2, 40], 0), bench.normals([2, 40], 1))
    let sample = Self.euler(
      noise, StraightDenoiser(clean: clean, noise: noise), stepCount: stepCount, shift: shift,
      bench: bench)
    // Three roundings of numbers below 8 a step.
    let bound = 3 * 8 * Double.ulpOfOne * Double(stepCount)
    #expect(difference(sample, clean.array, absolute: bound) == nil)
  }

  @Test(arguments: [1.0, 5])
  func `the Euler sampler is of first order`(shift: Double) {
    let bench = Bench<Double>()
    let noise = bench.tensor([1], [1, 1])
    let denoiser = GaussianDenoiser(deviation: 1.7)
    let counts = [64, 128, 256, 512]
    let errors = counts.map { count in
      // The flow of the ODE takes x₁ to s x₁.
      abs(Self.euler(noise, denoiser, stepCount: count, shift: shift, bench: bench)[0] - 1.7)
    }
    for (coarse, fine) in zip(errors, errors.dropFirst()) {
      let order = log2(coarse / fine)
      // The second-order term is a few per cent of the first at 64 steps and halves with each line.
      #expect(abs(order - 1) < 0.08, "errors \(errors)")
    }
  }

  @Test
  func `re-noising follows the hand-computed states and draws fresh noise between steps only`() {
    let bench = Bench<Double>()
    let schedule = SamplingSchedule(stepCount: 3, shift: 3)
    let noise = bench.normals([2, 4], 0)
    let spy = SpyDenoiser(GaussianDenoiser(mean: 0.5, deviation: 0.8))
    var drawn: [Int] = []
    let sample = Sampler(schedule: schedule, rule: .renoise)
      .sample(from: noise, denoiser: spy, on: bench.tape(recording: false)) { step in
        drawn.append(step)
        return bench.normals([2, 4], 100 + step)
      }
    #expect(drawn == [0, 1])
    var state = noise.array
    for step in 0..<3 {
      let (t, next) = (schedule.times[step], schedule.times[step + 1])
      #expect(spy.calls[step].times == [t, t] && !spy.calls[step].isRecording)
      #expect(difference(spy.calls[step].noisy, state, absolute: 1e-14) == nil)
      // x̂₀ = m + ((1−t) s² / V) (x_t − (1−t) m).
      let gain = (1 - t) * 0.64 / ((1 - t) * (1 - t) * 0.64 + t * t)
      let clean = state.map { 0.5 + gain * ($0 - (1 - t) * 0.5) }
      let fresh = bench.normals([2, 4], 100 + step).array
      state = zip(clean, fresh).map { (1 - next) * $0 + next * $1 }
    }
    #expect(difference(sample.array, state, absolute: 1e-14) == nil)
    #expect(sample.array != noise.array)
  }

  @Test(arguments: SamplerRule.allCases)
  func `stopping early gives the state that the next step would start from`(rule: SamplerRule) {
    let bench = Bench<Double>()
    let sampler = Sampler(schedule: SamplingSchedule(stepCount: 4, shift: 5), rule: rule)
    let noise = bench.normals([1, 6], 0)
    let spy = SpyDenoiser(GaussianDenoiser(mean: 1, deviation: 0.5))
    func sample(_ stepCount: Int?) -> [Double] {
      sampler.sample(
        from: noise, denoiser: spy, on: bench.tape(recording: false), stepCount: stepCount
      ) { bench.normals([1, 6], 100 + $0) }.array
    }
    let whole = sample(nil)
    let states = spy.calls.map(\.noisy)
    for stepCount in 0..<4 { #expect(sample(stepCount) == states[stepCount]) }
    #expect(sample(4) == whole)
  }

  @Test func `sampling leaves the noise it was given as it is`() {
    let bench = Bench<Double>()
    let noise = bench.normals([1, 6], 0)
    let before = noise.array
    _ = Self.euler(noise, GaussianDenoiser(mean: 1), stepCount: 4, shift: 5, bench: bench)
    #expect(noise.array == before)
  }
}
