// Weak-to-strong distribution matching, the ground-truth term of the same form, and their normalizer.
//
// The gradient on the generator's sample x is the difference between what the fake and the (weakly
// shifted) real DiT take for the clean video behind x_t, each sample divided by its own distance to
// the real estimate. DMD2 is the case alpha_weak = 0. Source: w2svd specification 1.5 and 1.6,
// equations 11–18; per-sample scope, so that no split over ranks changes a bit.

package import Autodiff
import Basics
package import DenseKernels
package import Tensors

package struct DistributionMatching: Sendable {
  /// One evaluation: the term for the generator, and what monitoring wants to know.
  package struct Result<Scalar: KernelScalar> {
    package let term: ObjectiveTerm<Scalar>
    /// x̂₀ of the fake DiT, for the ground-truth term.
    package let fakeEstimate: [Double]
    /// Mean over samples of n_b, the distance to the real estimate.
    package let meanDistance: Double
    /// Elements of the pull that were not finite and were set to zero.
    package let nonFiniteCount: Int
  }

  package init() {}

  /// L_DMD with gradient g / numel on `generated`, g = (x_F − x_R) / mean|x − x_R|. (11)–(16)
  ///
  /// Neither score pass is recorded: no gradient reaches W or the adapter.
  /// Not inlined: so the noise lives to its end, as it is planned.
  /// - Shapes: generated, noise [B, …].
  @inline(never)
  package func evaluate<Scalar: KernelScalar>(
    generated: Value<Scalar>, noise: Tensor<Scalar>, times: [Double],
    fake: some Denoiser<Scalar>, real: some Denoiser<Scalar>, on tape: Tape<Scalar>
  ) -> Result<Scalar> {
    let silent = tape.silent(role: .base)
    let noisy = FlowMatching.noised(
      generated.tensor, noise: noise, times: times, in: tape.arena,
      booking: Booking(.base, .activations))
    let input = Value(constant: noisy)
    let fakeEstimate = FlowMatching.cleanEstimate(
      noisy: noisy, velocity: fake.velocity(of: input, times: times, on: silent).tensor,
      times: times)
    let realEstimate = FlowMatching.cleanEstimate(
      noisy: noisy, velocity: real.velocity(of: input, times: times, on: silent).tensor,
      times: times)
    let pull = Self.pull(
      generated, from: fakeEstimate, to: realEstimate, sampleCount: times.count, on: tape)
    return Result(
      term: pull.term, fakeEstimate: fakeEstimate, meanDistance: pull.meanDistance,
      nonFiniteCount: pull.nonFiniteCount)
  }

  /// L_reg: the same form with the ground truth in the place of the real estimate. (18)
  package func groundTruth<Scalar: KernelScalar>(
    generated: Value<Scalar>, fakeEstimate: [Double], truth: Tensor<Scalar>, on tape: Tape<Scalar>
  ) -> ObjectiveTerm<Scalar> {
    Self.pull(
      generated, from: fakeEstimate, to: truth.doubles, sampleCount: generated.shape[0], on: tape
    ).term
  }

  private static func pull<Scalar: KernelScalar>(
    _ generated: Value<Scalar>, from start: [Double], to target: [Double], sampleCount: Int,
    on tape: Tape<Scalar>
  ) -> (term: ObjectiveTerm<Scalar>, meanDistance: Double, nonFiniteCount: Int) {
    let x = generated.tensor.doubles
    require(
      x.count == start.count && x.count == target.count,
      "estimates of \(start.count) and \(target.count) elements for \(x.count)")
    let width = x.count / sampleCount
    var gradient = x
    var squares = 0.0
    var distances = 0.0
    var nonFiniteCount = 0
    for b in 0..<sampleCount {
      let range = (b * width)..<((b + 1) * width)
      var distance = 0.0
      for index in range { distance += abs(x[index] - target[index]) }
      distance /= Double(width)
      distances += distance
      for index in range {
        var g = (start[index] - target[index]) / distance
        if !g.isFinite {
          nonFiniteCount += 1
          g = 0
        }
        squares += g * g
        gradient[index] = g / Double(x.count)
      }
    }
    return (
      ObjectiveTerm(
        loss: 0.5 * squares / Double(x.count), value: generated,
        gradient: Tensor(
          rounding: gradient, shape: generated.shape, in: tape.arena,
          booking: Booking(tape.role, .activations))),
      distances / Double(sampleCount), nonFiniteCount
    )
  }
}
