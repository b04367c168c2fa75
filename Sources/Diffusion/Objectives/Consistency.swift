// The LCM baseline: the generator's clean estimate agrees at adjacent times of the teacher's path.
//
// f(x, t) = x − t v(x, t), for which f(x, 0) = x holds by itself. One Euler step of the (guided)
// teacher from t_n to t_{n−1}; the target is the EMA generator there; pseudo-Huber distance.
// Source: LCM (2310.04378); w2svd specification 1.9.

package import Autodiff
package import Basics
package import DenseKernels
package import Tensors

package struct ConsistencyObjective: Sendable {
  /// The grid of times t_0 = 0 < … < t_N.
  package let grid: [Double]
  /// c of √(d² + c²) − c.
  package let huberWidth: Double

  package init(gridCount: Int = 50, shift: Double, huberWidth: Double = 1e-3) {
    grid = SamplingSchedule(stepCount: gridCount, shift: shift).times.reversed()
    self.huberWidth = huberWidth
  }

  /// Draws n in 1 … N for a sample: the pair (t_n, t_{n−1}).
  package func times(from stream: RandomStream) -> (later: Double, earlier: Double) {
    let n = 1 + stream.integer(below: grid.count - 1, at: 0)
    return (grid[n], grid[n - 1])
  }

  /// Not inlined: so the noise lives to its end, as it is planned.
  /// - Shapes: clean, noise [B, …]; one pair of times per sample.
  @inline(never)
  package func evaluate<Scalar: KernelScalar>(
    clean: Tensor<Scalar>, noise: Tensor<Scalar>, times: [(later: Double, earlier: Double)],
    generator: some Denoiser<Scalar>, target: some Denoiser<Scalar>, teacher: some Denoiser<Scalar>,
    on tape: Tape<Scalar>
  ) -> ObjectiveTerm<Scalar> {
    let booking = Booking(tape.role, .activations)
    let later = times.map(\.later)
    let noisy = FlowMatching.noised(
      clean, noise: noise, times: later, in: tape.arena, booking: booking)
    let targetEstimate = targetEstimate(
      Value(constant: noisy), times, target: target, teacher: teacher, on: tape.silent())
    let ones = Array(repeating: 1.0, count: times.count)
    let velocity = generator.velocity(of: Value(constant: noisy), times: later, on: tape)
    let estimate = tape.combineSamples(
      ones, Value(constant: noisy), later.map { -$0 }, velocity)
    let x = estimate.tensor.doubles
    let scale = 1 / Double(x.count)
    var loss = 0.0
    var gradient = x
    for index in x.indices {
      let difference = x[index] - targetEstimate[index]
      let root = (difference * difference + huberWidth * huberWidth).squareRoot()
      loss += root - huberWidth
      gradient[index] = difference / root * scale
    }
    return ObjectiveTerm(
      loss: loss * scale, value: estimate,
      gradient: Tensor(
        rounding: gradient, shape: estimate.shape, in: tape.arena, booking: booking))
  }

  /// What the target makes of the teacher's step. Not inlined: what it makes on the way is gone when the generator runs.
  @inline(never)
  private func targetEstimate<Scalar: KernelScalar>(
    _ noisy: Value<Scalar>, _ times: [(later: Double, earlier: Double)],
    target: some Denoiser<Scalar>, teacher: some Denoiser<Scalar>, on silent: Tape<Scalar>
  ) -> [Double] {
    let earlier = times.map(\.earlier)
    let moved = moved(noisy, times, teacher: teacher, on: silent)
    let velocity = target.velocity(of: moved, times: earlier, on: silent)
    return FlowMatching.cleanEstimate(
      noisy: moved.tensor, velocity: velocity.tensor, times: earlier)
  }

  /// One Euler step of the teacher. Not inlined: the velocity is gone when the target runs.
  @inline(never)
  private func moved<Scalar: KernelScalar>(
    _ noisy: Value<Scalar>, _ times: [(later: Double, earlier: Double)],
    teacher: some Denoiser<Scalar>, on silent: Tape<Scalar>
  ) -> Value<Scalar> {
    let velocity = teacher.velocity(of: noisy, times: times.map(\.later), on: silent)
    return silent.combineSamples(
      Array(repeating: 1, count: times.count), noisy, times.map { $0.earlier - $0.later },
      velocity)
  }
}
