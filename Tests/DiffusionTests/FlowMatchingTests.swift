import Basics
import DenseKernels
import Diffusion
import Foundation
import Tensors
import TestSupport
import Testing

struct FlowMatchingTests {
  @Test func `a shift of one changes no bit of a time`() {
    for index in 0...1_000 {
      let u = Double(index) / 1_000
      #expect(FlowMatching.shifted(u, by: 1) == u)
    }
  }

  @Test func `a shift leaves both ends where they are and keeps the order`() {
    for shift in [0.1, 0.3, 0.7, 1, 1.7, 3.5, 5, 7, 17] {
      #expect(FlowMatching.shifted(0, by: shift) == 0)
      #expect(FlowMatching.shifted(1, by: shift) == 1, "shift \(shift)")
      let times = (0...50).map { FlowMatching.shifted(Double($0) / 50, by: shift) }
      #expect(zip(times, times.dropFirst()).allSatisfy(<))
    }
  }

  @Test func `the inverse of a shift is the shift by its inverse`() {
    for shift in [0.1, 0.7, 3, 17] {
      for index in 0...50 {
        let u = Double(index) / 50
        let back = FlowMatching.shifted(FlowMatching.shifted(u, by: shift), by: 1 / shift)
        // Some eight roundings; near the flat end a slope of 17 makes them larger.
        #expect(abs(back - u) <= 8 * 17 * Double.ulpOfOne, "shift \(shift), u \(u)")
      }
    }
  }

  @Test func `the schedules have the times of the specification`() {
    let four = SamplingSchedule(stepCount: 4, shift: 5)
    #expect(four.stepCount == 4)
    // One rounding in each of three operations of numbers up to 5.
    #expect(difference(four.times, [1, 0.9375, 5 / 6, 0.625, 0], absolute: 1e-15) == nil)
    #expect(four.times.first == 1 && four.times.last == 0)
    #expect(SamplingSchedule(stepCount: 1, shift: 5).times == [1, 0])
    #expect(SamplingSchedule(stepCount: 4, shift: 1).times == [1, 0.75, 0.5, 0.25, 0])
  }

  @Test(arguments: [0.1, 0.3, 1, 3.1, 5, 7, 17])
  func `a schedule falls from exactly one to exactly zero`(shift: Double) {
    for stepCount in 1...60 {
      let times = SamplingSchedule(stepCount: stepCount, shift: shift).times
      #expect(times.count == stepCount + 1)
      #expect(times.first == 1 && times.last == 0, "\(stepCount) steps")
      #expect(zip(times, times.dropFirst()).allSatisfy(>), "\(stepCount) steps")
    }
  }

  @Test func `pure noise ignores the clean sample bit by bit, even one that is not finite`() {
    let bench = Bench<Float>()
    let clean = bench.normals([3, 5], 0)
    clean.rows(1..<2).buffer.fill(with: .nan)
    clean.rows(2..<3).buffer.fill(with: .infinity)
    let noise = bench.normals([3, 5], 1)
    let noisy = FlowMatching.noised(
      clean, noise: noise, times: [1, 1, 1], in: bench.arena, booking: bench.booking)
    #expect(noisy.array.map(\.bitPattern) == noise.array.map(\.bitPattern))
  }

  @Test func `each sample is noised at its own time`() {
    let bench = Bench<Double>()
    let clean = bench.tensor([1, 2, 3, 4, 5, 6], [3, 2])
    let noise = bench.tensor([8, -8, 16, -16, 32, -32], [3, 2])
    let noisy = FlowMatching.noised(
      clean, noise: noise, times: [0, 0.25, 1], in: bench.arena, booking: bench.booking)
    #expect(noisy.array == [1, 2, 6.25, -1, 32, -32])
  }

  @Test func `the target velocity leads back to the clean sample`() {
    let bench = Bench<Double>()
    let times = [0.02, 0.3, 0.7, 1]
    let clean = bench.normals([4, 100], 0)
    let noise = bench.normals([4, 100], 1)
    let noisy = FlowMatching.noised(
      clean, noise: noise, times: times, in: bench.arena, booking: bench.booking)
    let target = bench.tensor(zip(noise.array, clean.array).map { $0 - $1 }, clean.shape)
    let estimate = FlowMatching.cleanEstimate(noisy: noisy, velocity: target, times: times)
    // Four roundings of numbers below 8.
    #expect(difference(estimate, clean.array, absolute: 8e-15) == nil)
  }

  @Test func `a clean estimate of Float32 latents is not rounded to Float32`() {
    let bench = Bench<Float>()
    let noisy = bench.tensor([1], [1])
    let velocity = bench.tensor([0x1p-30], [1])
    #expect(
      FlowMatching.cleanEstimate(noisy: noisy, velocity: velocity, times: [0.5]) == [1 - 0x1p-31])
  }
}

struct TimeDistributionTests {
  private static func draws(_ distribution: TimeDistribution) -> [Double] {
    (0..<100_000).map {
      distribution.time(from: RandomStream(seed: 11, purpose: .tests, step: 2, sample: $0))
    }
  }

  @Test(arguments: [3.0, 5, 7])
  func `shifted uniform times have the moments of their density`(shift: Double) {
    let times = Self.draws(.uniform(shift: shift, bounds: 0...1))
    // E t = s/(s−1) − s ln s/(s−1)², the integral of equation 6 over u.
    let d = shift - 1
    #expect(Estimate(times).agrees(with: shift / d - shift * log(shift) / (d * d)))
    // Undone, the shift leaves u uniform: mean 1/2, mean square 1/3.
    let uniform = times.map { $0 / (shift - d * $0) }
    #expect(Estimate(uniform).agrees(with: 0.5))
    #expect(Estimate(uniform.map { $0 * $0 }).agrees(with: 1.0 / 3))
  }

  @Test func `clamped times sit on their bounds as often as the density lies outside`() {
    let times = Self.draws(.uniform(shift: 5, bounds: 0.02...0.98))
    #expect(times.allSatisfy { (0.02...0.98).contains($0) })
    // t ≤ 0.02 where u ≤ t / (s − (s−1) t), and likewise above 0.98.
    let below = 0.02 / (5 - 4 * 0.02)
    let above = 1 - 0.98 / (5 - 4 * 0.98)
    #expect(Estimate(times.map { $0 == 0.02 ? 1 : 0 }).agrees(with: below))
    #expect(Estimate(times.map { $0 == 0.98 ? 1 : 0 }).agrees(with: above))
  }

  @Test(arguments: [1.0, 5])
  func `the logit of a logit-normal time is normal about the logarithm of the shift`(
    shift: Double
  ) {
    let times = Self.draws(.logitNormal(shift: shift))
    #expect(times.allSatisfy { 0 < $0 && $0 < 1 })
    let logits = times.map { log($0 / (1 - $0)) - log(shift) }
    #expect(Estimate(logits).agrees(with: 0))
    #expect(Estimate(logits.map { $0 * $0 }).agrees(with: 1))
    #expect(Estimate(logits.map { $0 * $0 * $0 * $0 }).agrees(with: 3))
  }
}

struct NormalTensorTests {
  private static let streams = (0..<4).map {
    RandomStream(seed: 5, purpose: .tests, step: 7, sample: 10 + $0)
  }

  @Test func `a sample's noise does not depend on how its batch is split`() {
    let bench = Bench<Float>()
    // Seven elements: the pairs of Box and Muller do not line up with the samples.
    let together: Tensor<Float> = normalTensor(
      Self.streams, sampleShape: [7, 1], in: bench.arena, booking: bench.booking)
    #expect(together.shape == [4, 7, 1])
    for range in [0..<1, 1..<4, 0..<2, 2..<4] {
      let part: Tensor<Float> = normalTensor(
        Array(Self.streams[range]), sampleShape: [7, 1], in: bench.arena, booking: bench.booking)
      #expect(part.array == together.rows(range).array)
    }
    #expect(Set((0..<4).map { together.rows($0..<($0 + 1)).array }).count == 4)
  }

  @Test func `both scalars get the same numbers, standard normal ones`() {
    let single: Tensor<Float> = normalTensor(
      Self.streams, sampleShape: [25_000], in: Arena(), booking: Booking(.common, .activations))
    let double: Tensor<Double> = normalTensor(
      Self.streams, sampleShape: [25_000], in: Arena(), booking: Booking(.common, .activations))
    #expect(single.doubles == double.array)
    #expect(Estimate(double.array).agrees(with: 0))
    #expect(Estimate(double.array.map { $0 * $0 }).agrees(with: 1))
  }
}
