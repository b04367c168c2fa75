// The mechanical checks of the specification on the real network, in both scalars.

import Autodiff
import Basics
import DenseKernels
import Diffusion
import Models
import Tensors
import TestSupport
import Testing

struct TransformerRolesTests {
  // MARK: (a) A new adapter

  private func checkNewAdapter<Scalar: KernelScalar>(_ type: Scalar.Type, bound: Double) {
    let roles = TinyRoles<Scalar>(trained: false)
    let x = roles.latents(0)
    for weak in [0, 0.25, 0.75] {
      let tape = roles.bench.tape()
      let result = roles.matching(tape.input(x), weak: weak, scale: 1, on: tape)
      #expect(result.term.gradient.array.allSatisfy { $0 == 0 }, "weak \(weak)")
      #expect(result.term.loss == 0 && result.nonFiniteCount == 0)
      #expect(result.meanDistance > 0.1)
    }

    // g = (1 − w) (x̂_c − x̂_u) / n, from W without any adapter.
    let (times, scale) = ([0.3, 0.8], 3.5)
    let tape = roles.bench.tape(recording: false)
    let noisy = FlowMatching.noised(
      x, noise: roles.latents(2), times: times, in: roles.bench.arena,
      booking: roles.bench.booking)
    func estimate(_ denoiser: TransformerDenoiser<Scalar>) -> [Double] {
      let velocity = denoiser.velocity(of: Value(constant: noisy), times: times, on: tape)
      return FlowMatching.cleanEstimate(noisy: noisy, velocity: velocity.tensor, times: times)
    }
    let c = estimate(roles.scoring(nil))
    let u = estimate(roles.scoring(nil, isConditional: false))
    let result = roles.matching(tape.input(x), weak: 0.25, scale: scale, on: tape)
    let width = c.count / 2
    let elements = x.doubles
    for b in 0..<2 {
      let range = (b * width)..<((b + 1) * width)
      let n =
        range.reduce(0) { $0 + abs(elements[$1] - u[$1] - scale * (c[$1] - u[$1])) }
        / Double(width)
      let expected = range.map { (1 - scale) * (c[$0] - u[$0]) / n / Double(c.count) }
      #expect(largestMagnitude(expected) > 1e-4)
      #expect(
        difference(
          Array(result.term.gradient.doubles[range]), expected,
          absolute: bound * largestMagnitude(expected)) == nil)
    }
  }

  @Test func `with a new adapter and no guidance nothing pulls, with guidance its part alone`() {
    // Velocities and their combination are rounded to the scalar: some ulps of their size, which
    // is tens of times that of the pull.
    checkNewAdapter(Float.self, bound: 1e-4)
    checkNewAdapter(Double.self, bound: 1e-12)
  }

  // MARK: (b) Who learns in which turn

  private func bindGradients<Scalar: KernelScalar>(
    _ set: ParameterSet<Scalar>
  ) -> Buffer<Scalar> {
    let buffer = Buffer<Scalar>(zeroed: set.layout.count)
    set.bindGradients(to: buffer)
    return buffer
  }

  @Test(arguments: RolloutSource.allCases)
  func `a generator turn trains the generator alone, though all could learn`(
    source: RolloutSource
  ) {
    let roles = TinyRoles<Double>(trained: true)
    let base = bindGradients(roles.base.parameters)
    let adapter = bindGradients(roles.adapter.parameters)
    let generator = bindGradients(roles.generator.parameters)
    let tape = roles.bench.tape()
    let x = Rollout(schedule: SamplingSchedule(stepCount: 4, shift: 5), source: source)
      .generate(
        depth: 2, noise: roles.latents(0), truth: roles.latents(1), generator: roles.generating,
        on: tape
      ) { roles.latents(20 + $0) }
    let matching = DistributionMatching()
    let result = roles.matching(x, weak: 0.25, scale: 3.5, on: tape)
    let truth = matching.groundTruth(
      generated: x, fakeEstimate: result.fakeEstimate, truth: roles.latents(1), on: tape)
    ObjectiveTerm.backward([(1, result.term), (0.25, truth)], on: tape)
    #expect(base.array.allSatisfy { $0 == 0 })
    #expect(adapter.array.allSatisfy { $0 == 0 })
    for name in ["x_embedder.proj.weight", "proj_out.weight"] {
      let gradient = roles.generator.parameters[name].gradient?.array ?? []
      #expect(gradient.contains { $0 != 0 }, "\(name)")
    }
    #expect(generator.array.allSatisfy { $0.isFinite })
  }

  /// L_FM of the critic at a fixed sample, with whatever gradients are bound.
  private func criticLoss(_ roles: TinyRoles<Double>, differentiate: Bool) -> Double {
    let times = [0.25, 0.9]
    let x = Rollout(schedule: SamplingSchedule(stepCount: 4, shift: 5), source: .data).generate(
      depth: 1, noise: roles.latents(0), truth: roles.latents(1), generator: roles.generating,
      on: roles.bench.tape(recording: false)
    ) { roles.latents(20 + $0) }
    let noise = roles.latents(3)
    let noisy = FlowMatching.noised(
      x.tensor, noise: noise, times: times, in: roles.bench.arena, booking: roles.bench.booking)
    let tape = roles.bench.tape(recording: differentiate)
    let velocity = roles.scoring(1).velocity(of: Value(constant: noisy), times: times, on: tape)
    let term = FlowMatchingObjective().evaluate(
      prediction: velocity, clean: x.tensor, noise: noise, on: tape)
    if differentiate { ObjectiveTerm.backward([(1, term)], on: tape) }
    return term.loss
  }

  @Test func `a critic turn trains every factor of the adapter, by the slope of its loss`() {
    let roles = TinyRoles<Double>(trained: true)
    let generator = bindGradients(roles.generator.parameters)
    let adapter = bindGradients(roles.adapter.parameters)
    _ = criticLoss(roles, differentiate: true)
    #expect(generator.array.allSatisfy { $0 == 0 })
    for (index, parameter) in roles.adapter.parameters.parameters.enumerated() {
      let gradient = parameter.gradient?.array ?? []
      // The text stream's last layers reach no video token through this short network's end.
      let element = index * 7 % gradient.count
      let kept = parameter.value.buffer[element]
      parameter.value.buffer[element] = kept + 1e-5
      let above = criticLoss(roles, differentiate: false)
      parameter.value.buffer[element] = kept - 1e-5
      let below = criticLoss(roles, differentiate: false)
      parameter.value.buffer[element] = kept
      // Step 1e-5: h² f‴ and ε f / h are both near 1e-9 for a loss of order ten.
      let slope = (above - below) / 2e-5
      #expect(
        abs(slope - gradient[element]) < 1e-7 * max(1, abs(slope)), "\(parameter.name)")
    }
    #expect(adapter.array.contains { $0 != 0 })
    for name in ["lora_A", "lora_B"] {
      #expect(
        roles.adapter.parameters.parameters.contains {
          $0.name.contains(name) && ($0.gradient?.array.contains { $0 != 0 } ?? false)
        })
    }
  }

  @Test func `the generator's gradient is the slope of the pulled sample`() {
    let roles = TinyRoles<Double>(trained: true)
    let gradients = bindGradients(roles.generator.parameters)
    let rollout = Rollout(schedule: SamplingSchedule(stepCount: 4, shift: 5), source: .data)
    func sample(_ tape: Tape<Double>) -> Value<Double> {
      rollout.generate(
        depth: 1, noise: roles.latents(0), truth: roles.latents(1), generator: roles.generating,
        on: tape
      ) { roles.latents(20 + $0) }
    }
    let tape = roles.bench.tape()
    let result = roles.matching(sample(tape), weak: 0.25, scale: 3.5, on: tape)
    let pull = result.term.gradient.array
    ObjectiveTerm.backward([(1, result.term)], on: tape)
    /// ⟨x(θ), sg[g / numel]⟩, whose slope is that of (16).
    func product() -> Double {
      zip(sample(roles.bench.tape(recording: false)).tensor.array, pull)
        .reduce(0) { $0 + $1.0 * $1.1 }
    }
    let set = roles.generator.parameters
    for (index, parameter) in set.parameters.enumerated() where index.isMultiple(of: 3) {
      let element = index * 5 % parameter.value.count
      let kept = parameter.value.buffer[element]
      parameter.value.buffer[element] = kept + 1e-5
      let above = product()
      parameter.value.buffer[element] = kept - 1e-5
      let below = product()
      parameter.value.buffer[element] = kept
      let slope = (above - below) / 2e-5
      let gradient = parameter.gradient?.array[element] ?? .nan
      #expect(abs(slope - gradient) < 1e-8 * max(1, abs(slope)), "\(parameter.name)")
    }
    #expect(gradients.array.contains { abs($0) > 1e-3 })
  }

  // MARK: (e) One W, many weights

  private func checkWeightPerCall<Scalar: KernelScalar>(_ type: Scalar.Type) {
    let roles = TinyRoles<Scalar>(trained: true)
    let before = roles.base.parameters.values.array
    let noisy = Value(constant: roles.latents(0))
    func velocity(_ weight: Double?) -> [Scalar] {
      roles.scoring(weight)
        .velocity(of: noisy, times: [0.3, 0.8], on: roles.bench.tape(recording: false)).tensor.array
    }
    let weights: [Double?] = [1, 0.25, 0, nil, 0.25, 1]
    let outputs = weights.map(velocity)
    // A weight holds for its call only: later calls repeat the bits of earlier ones.
    #expect(outputs[5] == outputs[0] && outputs[4] == outputs[1])
    #expect(outputs[2] == outputs[3])
    #expect(outputs[0] != outputs[1] && outputs[1] != outputs[2])
    let tape = roles.bench.tape()
    let result = roles.matching(tape.input(roles.latents(0)), weak: 0.25, scale: 3.5, on: tape)
    #expect(result.term.gradient.array.contains { $0 != 0 })
    #expect(velocity(1) == outputs[0] && velocity(nil) == outputs[3])
    #expect(roles.base.parameters.values.array == before)
  }

  @Test func `the adapter's weight holds for one call and W never changes`() {
    checkWeightPerCall(Float.self)
    checkWeightPerCall(Double.self)
  }

  // MARK: (f) Splits of a batch

  @Test func `the network's pull on a sample does not depend on its batch`() {
    let roles = TinyRoles<Double>(trained: true)
    let (x, noise, times) = (roles.latents(0), roles.latents(2), [0.3, 0.8])
    let tape = roles.bench.tape()
    let together = roles.matching(tape.input(x), weak: 0.25, scale: 3.5, on: tape)
    var (losses, gradients) = (0.0, [Double]())
    for b in 0..<2 {
      func alone(_ weight: Double, isConditional: Bool = true) -> TransformerDenoiser<Double> {
        TransformerDenoiser(
          model: roles.base, conditions: isConditional ? [roles.conditions[b]] : [Condition()],
          adapter: Adapter(roles.adapter, weight: weight))
      }
      let tape = roles.bench.tape()
      let result = DistributionMatching().evaluate(
        generated: tape.input(x.rows(b..<(b + 1))), noise: noise.rows(b..<(b + 1)),
        times: [times[b]], fake: alone(1),
        real: GuidedDenoiser(
          conditional: alone(0.25), unconditional: alone(0.25, isConditional: false), scale: 3.5),
        on: tape)
      losses += result.term.loss / 2
      gradients += result.term.gradient.array.map { $0 / 2 }
    }
    // Padding of the shorter text changes the order of sums in the network: rounding alone.
    #expect(difference(together.term.gradient.array, gradients, absolute: 1e-12) == nil)
    #expect(abs(together.term.loss - losses) < 1e-11 * losses)
  }
}
