// From noise to a sample in K network evaluations.

package import Autodiff
import Basics
package import DenseKernels
package import Tensors

/// Which rule takes a sample from τ_k to τ_{k+1}.
package enum SamplerRule: String, CaseIterable, Codable, Sendable {
  /// y ← y + (τ_{k+1} − τ_k) v: the probability-flow ODE, deterministic after the first noise.
  case euler
  /// y ← (1 − τ_{k+1}) x̂₀ + τ_{k+1} ε with fresh ε: as DMD2 and FastVideo sample few-step students.
  case renoise
}

/// Runs a schedule on a denoiser.
package struct Sampler: Sendable {
  package let schedule: SamplingSchedule
  package let rule: SamplerRule

  package init(schedule: SamplingSchedule, rule: SamplerRule) {
    self.schedule = schedule
    self.rule = rule
  }

  /// The clean sample that grows out of `noise`.
  ///
  /// - Parameter tape: says where and how to compute; nothing is recorded on it.
  /// - Parameter stepCount: stop in front of step `stepCount` (counted from 0) and return the state
  ///   there; nil runs all. `freshNoise(k)` is drawn for the re-noising after step k.
  /// - Shapes: [B, …] → [B, …]. - Cost: one velocity a step.
  package func sample<Scalar: KernelScalar>(
    from noise: Tensor<Scalar>, denoiser: some Denoiser<Scalar>, on tape: Tape<Scalar>,
    stepCount: Int? = nil, freshNoise: (_ step: Int) -> Tensor<Scalar>
  ) -> Tensor<Scalar> {
    let stepCount = stepCount ?? schedule.stepCount
    require(
      (0...schedule.stepCount).contains(stepCount),
      "\(stepCount) steps of a schedule of \(schedule.stepCount)")
    let batch = noise.shape.first ?? 0
    let arena = tape.arena
    let booking = Booking(tape.role, .activations)
    var state = noise
    for step in 0..<stepCount {
      let (time, next) = (schedule.times[step], schedule.times[step + 1])
      let silent = tape.silent()
      let times = Array(repeating: time, count: batch)
      let velocity = denoiser.velocity(of: Value(constant: state), times: times, on: silent).tensor
      switch rule {
      case .euler:
        let moved = Tensor<Scalar>(shape: state.shape, in: arena, booking: booking)
        Scalar.combine(1, state.buffer, Scalar(next - time), velocity.buffer, into: moved.buffer)
        state = moved
      case .renoise:
        let clean = Tensor<Scalar>(
          rounding: FlowMatching.cleanEstimate(noisy: state, velocity: velocity, times: times),
          shape: state.shape, in: arena, booking: booking)
        state =
          next == 0
          ? clean
          : FlowMatching.noised(
            clean, noise: freshNoise(step), times: Array(repeating: next, count: batch), in: arena,
            booking: booking)
      }
    }
    return state
  }
}
