// Everything together on a plane: a teacher of eight modes on a ring, distilled to one and two steps.

import Autodiff
import Basics
import DenseKernels
import Diffusion
import Foundation
import Tensors
import TestSupport
import Testing

/// v(x, t) by a small MLP over x and a few waves of t.
private struct RingNetwork: Denoiser {
  static let width = 64
  static let layerShapes = [[width, 9], [width, width], [width, width], [2, width]]
  static let rank = 8

  let set: ParameterSet<Float>
  var adapter: ParameterSet<Float>?
  var weight = 0.0

  static func parameters(in arena: Arena, seed: UInt64) -> ParameterSet<Float> {
    let specifications = layerShapes.enumerated().flatMap { index, shape in
      let bound = 1 / Double(shape[1]).squareRoot()
      return [
        ParameterSpecification("w\(index)", shape, .uniform(bound: 1.7 * bound)),
        ParameterSpecification("b\(index)", [shape[0]], .uniform(bound: bound)),
      ]
    }
    let set = ParameterSet<Float>(specifications, in: arena, role: .base)
    set.initialize(seed: seed)
    return set
  }

  static func adapterParameters(in arena: Arena, seed: UInt64) -> ParameterSet<Float> {
    let specifications = layerShapes.enumerated().flatMap { index, shape in
      [
        ParameterSpecification(
          "A\(index)", [rank, shape[1]], .uniform(bound: 1 / Double(shape[1]).squareRoot())),
        ParameterSpecification("B\(index)", [shape[0], rank], .zeros),
      ]
    }
    let set = ParameterSet<Float>(specifications, in: arena, role: .fake)
    set.initialize(seed: seed)
    return set
  }

  func velocity(
    of noisy: Value<Float>, times: [Double], on tape: Tape<Float>
  ) -> Value<Float> {
    let waves = times.flatMap { t -> [Double] in
      [t] + [0.5, 1, 2].flatMap { [cos($0 * .pi * t), sin($0 * .pi * t)] }
    }
    let features = Tensor<Float>(
      rounding: waves, shape: [times.count, 7], in: tape.arena,
      booking: Booking(tape.role, .activations))
    var hidden = tape.concatenate([noisy, Value(constant: features)], along: 1)
    for index in Self.layerShapes.indices {
      let update = adapter.map {
        LowRankUpdate(down: $0["A\(index)"], up: $0["B\(index)"], scale: weight)
      }
      hidden = tape.linear(
        hidden, weight: set["w\(index)"], bias: set["b\(index)"], update: update)
      if index < Self.layerShapes.count - 1 { hidden = tape.apply(.silu, to: hidden) }
    }
    return hidden
  }
}

/// Adam over one flat set.
private final class Learner {
  let set: ParameterSet<Float>
  private let gradients: Buffer<Float>
  private let firstMoment: Buffer<Float>
  private let secondMoment: Buffer<Float>
  private var count = 0

  init(_ set: ParameterSet<Float>) {
    self.set = set
    gradients = Buffer(zeroed: set.layout.count)
    firstMoment = Buffer(zeroed: set.layout.count)
    secondMoment = Buffer(zeroed: set.layout.count)
  }

  /// The set learns inside `body` only, so that no other turn touches its gradients.
  func step(rate: Double, _ body: () -> Void) {
    gradients.fill(with: 0)
    set.bindGradients(to: gradients)
    body()
    set.bindGradients(to: nil)
    count += 1
    var step = AdamW.Step(number: count, learningRate: rate)
    step.weightDecay = 0
    step.beta2 = 0.99
    AdamW.update(
      parameters: set.values, gradients: gradients, firstMoment: firstMoment,
      secondMoment: secondMoment, ema: nil, step: step)
  }
}

/// One teacher and what is distilled from it.
private final class Ring {
  static let batch = 128
  let arena = Arena()
  let booking = Booking(.common, .activations)
  let teacher: ParameterSet<Float>
  /// τ = 1, 1/2: the first step alone is a one-step sampler.
  let schedule = SamplingSchedule(stepCount: 2, shift: 1)

  init() {
    teacher = RingNetwork.parameters(in: arena, seed: 1)
    let learner = Learner(teacher)
    let stepCount = 1_200
    for step in 0..<stepCount {
      let (x, epsilon) = (truth(step), noise(0, step))
      let drawn = times(.logitNormal(shift: 1), 1, step)
      let noisy = FlowMatching.noised(x, noise: epsilon, times: drawn, in: arena, booking: booking)
      learner.step(rate: 4e-3 * (1 - Double(step) / Double(stepCount))) {
        let tape = Tape<Float>(arena: arena, role: .base)
        let velocity = RingNetwork(set: teacher)
          .velocity(of: Value(constant: noisy), times: drawn, on: tape)
        let term = FlowMatchingObjective().evaluate(
          prediction: velocity, clean: x, noise: epsilon, on: tape)
        ObjectiveTerm.backward([(1, term)], on: tape)
      }
    }
  }

  // MARK: Draws

  private func streams(_ kind: Int, _ step: Int, count: Int = batch) -> [RandomStream] {
    (0..<count).map {
      RandomStream(
        seed: 20, purpose: .init(rawValue: RandomPurpose.tests.rawValue + UInt32(kind)),
        step: step, sample: $0)
    }
  }

  func noise(_ kind: Int, _ step: Int, count: Int = batch) -> Tensor<Float> {
    normalTensor(
      streams(kind, step, count: count), sampleShape: [2], in: arena, booking: booking)
  }

  private func times(_ distribution: TimeDistribution, _ kind: Int, _ step: Int) -> [Double] {
    streams(kind, step).map(distribution.time(from:))
  }

  /// Eight modes of deviation 0.1 on a ring of radius √2: unit variance along each axis.
  func truth(_ step: Int, count: Int = batch) -> Tensor<Float> {
    let elements = streams(2, step, count: count).flatMap { stream -> [Double] in
      let angle = Double(stream.integer(below: 8, at: 0)) * Double.pi / 4
      let radius = Double(2).squareRoot()
      let x = radius * cos(angle) + 0.1 * stream.normal(at: 4)
      let y = radius * sin(angle) + 0.1 * stream.normal(at: 5)
      return [x, y]
    }
    return Tensor(rounding: elements, shape: [count, 2], in: arena, booking: booking)
  }

  private func copyOfTeacher() -> ParameterSet<Float> {
    let copy = RingNetwork.parameters(in: arena, seed: 1)
    copy.values.copy(from: teacher.values)
    return copy
  }

  // MARK: Distillation

  /// Distribution matching with a low-rank critic; weak = 0 is DMD2.
  func distilled(weak: Double, source: RolloutSource) -> ParameterSet<Float> {
    let generator = Learner(copyOfTeacher())
    let adapter = Learner(RingNetwork.adapterParameters(in: arena, seed: 3))
    let scoreTimes = TimeDistribution.uniform(shift: 1, bounds: 0.02...0.98)
    let rollout = Rollout(schedule: schedule, source: source)
    let criticRatio = 3
    let stepCount = 1_200
    func generate(_ step: Int, on tape: Tape<Float>) -> Value<Float> {
      let depth = RandomStream(seed: 21, purpose: .tests, step: step).integer(below: 2, at: 0)
      return rollout.generate(
        depth: depth, noise: noise(3, step), truth: truth(step),
        generator: RingNetwork(set: generator.set), on: tape
      ) { noise(4, 2 * step + $0) }
    }
    for step in 0..<stepCount {
      let rate = 1 - Double(step) / Double(stepCount)
      if step % criticRatio == 0 && step > 60 {
        generator.step(rate: 1e-3 * rate) {
          let tape = Tape<Float>(arena: arena, role: .generator)
          let result = DistributionMatching().evaluate(
            generated: generate(step, on: tape), noise: noise(5, step),
            times: times(scoreTimes, 6, step),
            fake: RingNetwork(set: teacher, adapter: adapter.set, weight: 1),
            real: RingNetwork(set: teacher, adapter: adapter.set, weight: weak), on: tape)
          ObjectiveTerm.backward([(1, result.term)], on: tape)
        }
      }
      let x = generate(step, on: Tape(arena: arena, role: .generator, isRecording: false)).tensor
      let epsilon = noise(7, step)
      let criticTimes = times(scoreTimes, 8, step)
      let noisy = FlowMatching.noised(
        x, noise: epsilon, times: criticTimes, in: arena, booking: booking)
      adapter.step(rate: 4e-3 * (0.2 + 0.8 * rate)) {
        let tape = Tape<Float>(arena: arena, role: .fake)
        let velocity = RingNetwork(set: teacher, adapter: adapter.set, weight: 1)
          .velocity(of: Value(constant: noisy), times: criticTimes, on: tape)
        let term = FlowMatchingObjective().evaluate(
          prediction: velocity, clean: x, noise: epsilon, on: tape)
        ObjectiveTerm.backward([(1, term)], on: tape)
      }
    }
    return generator.set
  }

  func consistent() -> ParameterSet<Float> {
    let generator = Learner(copyOfTeacher())
    let target = copyOfTeacher()
    let objective = ConsistencyObjective(gridCount: 50, shift: 1)
    let stepCount = 600
    for step in 0..<stepCount {
      let pairs = streams(9, step).map(objective.times(from:))
      generator.step(rate: 1e-3 * (1 - Double(step) / Double(stepCount))) {
        let tape = Tape<Float>(arena: arena, role: .generator)
        let term = objective.evaluate(
          clean: truth(step), noise: noise(10, step), times: pairs,
          generator: RingNetwork(set: generator.set), target: RingNetwork(set: target),
          teacher: RingNetwork(set: teacher), on: tape)
        ObjectiveTerm.backward([(1, term)], on: tape)
      }
      Float.combine(0.95, target.values, 0.05, generator.set.values, into: target.values)
    }
    return generator.set
  }

  // MARK: Measure

  private static let measured = 1_000

  func samples(
    _ set: ParameterSet<Float>, stepCount: Int, rule: SamplerRule
  ) -> [SIMD2<Float>] {
    let elements = Sampler(
      schedule: SamplingSchedule(stepCount: stepCount, shift: 1), rule: rule
    ).sample(
      from: noise(11, 0, count: Self.measured), denoiser: RingNetwork(set: set),
      on: Tape(arena: arena, role: .common, isRecording: false)
    ) { noise(12, $0, count: Self.measured) }.array
    return (0..<Self.measured).map { SIMD2(elements[2 * $0], elements[2 * $0 + 1]) }
  }

  /// Energy distance to true samples: 2 E|X − Y| − E|X − X′| − E|Y − Y′|, zero for equal laws.
  func distance(_ x: [SIMD2<Float>]) -> Double {
    let elements = truth(1_000_000, count: Self.measured).array
    let y = (0..<Self.measured).map { SIMD2(elements[2 * $0], elements[2 * $0 + 1]) }
    func mean(_ a: [SIMD2<Float>], _ b: [SIMD2<Float>]) -> Double {
      var sum = 0.0
      for p in a {
        var row: Float = 0
        for q in b { row += ((p - q) * (p - q)).sum().squareRoot() }
        sum += Double(row)
      }
      return sum / Double(a.count * b.count)
    }
    return 2 * mean(x, y) - mean(x, x) - mean(y, y)
  }

  /// Modes that have at least a 40th of the samples within three deviations; a fair share is an eighth.
  func modeCount(_ x: [SIMD2<Float>]) -> Int {
    (0..<8).count { mode in
      let angle = Float(mode) * .pi / 4
      let center = SIMD2<Float>(cos(angle), sin(angle)) * Float(2).squareRoot()
      return x.count { (($0 - center) * ($0 - center)).sum() < 0.09 } >= Self.measured / 40
    }
  }
}

struct RingTests {
  @Test func `distilled to one and two steps, every student is far nearer to the ring than Euler`()
  {
    let ring = Ring()
    let teacher = ring.samples(ring.teacher, stepCount: 50, rule: .euler)
    #expect(ring.modeCount(teacher) == 8)
    let students = [
      ("DMD2", ring.distilled(weak: 0, source: .simulate)),
      ("W2S", ring.distilled(weak: 0.25, source: .data)), ("LCM", ring.consistent()),
    ]
    for stepCount in [1, 2] {
      let euler = ring.distance(ring.samples(ring.teacher, stepCount: stepCount, rule: .euler))
      // Euler gives about 0.7 and 0.25; trained five times as long, students give 0.04 and 0.01.
      #expect(euler > 0.15)
      for (name, student) in students {
        let distance = ring.distance(ring.samples(student, stepCount: stepCount, rule: .renoise))
        #expect(distance < 0.5 * euler, "\(name) in \(stepCount) steps; Euler has \(euler)")
      }
    }
  }
}
