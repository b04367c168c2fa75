// Where the generator's input comes from while it is trained, and its one step with gradient.
//
// Source: w2svd specification 1.3, equation 9; `data` is the method figure's path, `simulate` is
// DMD2's backward simulation.

package import Autodiff
import Basics
package import DenseKernels
package import Tensors

/// What the generator is given at step k.
package enum RolloutSource: String, CaseIterable, Codable, Sendable {
  /// The noised ground truth; needs paired conditions.
  case data
  /// What the generator itself makes of noise in the steps before k.
  case simulate
}

/// One update trains one step k of the K-step schedule.
package struct Rollout: Sendable {
  package let schedule: SamplingSchedule
  package let source: RolloutSource

  package init(schedule: SamplingSchedule, source: RolloutSource) {
    self.schedule = schedule
    self.source = source
  }

  /// x = y − τ_k v_θ(y, τ_k), with y at τ_k from the source. (9)
  ///
  /// - Parameter depth: k − 1, in 0 ..< K. At depth 0, y is `noise` exactly.
  /// - Parameter truth: x_gt, read by `data` only. `freshNoise(i)`: ε after simulated step i.
  /// Not inlined: so the noise lives to its end, as it is planned.
  /// - Shapes: noise, truth [B, …] → [B, …].
  @inline(never)
  package func generate<Scalar: KernelScalar>(
    depth: Int, noise: Tensor<Scalar>, truth: Tensor<Scalar>?, generator: some Denoiser<Scalar>,
    on tape: Tape<Scalar>, freshNoise: (_ step: Int) -> Tensor<Scalar>
  ) -> Value<Scalar> {
    require(
      (0..<schedule.stepCount).contains(depth),
      "depth \(depth) of a schedule of \(schedule.stepCount) steps")
    let time = schedule.times[depth]
    let times = Array(repeating: time, count: noise.shape[0])
    let start: Tensor<Scalar>
    switch source {
    case .data:
      guard let truth else { trap("a rollout from data needs the ground truth") }
      start = FlowMatching.noised(
        truth, noise: noise, times: times, in: tape.arena,
        booking: Booking(tape.role, .activations))
    case .simulate:
      start = Sampler(schedule: schedule, rule: .renoise).sample(
        from: noise, denoiser: generator, on: tape, stepCount: depth, freshNoise: freshNoise)
    }
    let y = Value(constant: start)
    let velocity = generator.velocity(of: y, times: times, on: tape)
    return tape.combineSamples(
      Array(repeating: 1, count: times.count), y, times.map { -$0 }, velocity)
  }
}
