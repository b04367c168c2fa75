// The adversarial term on DiT features, with DMD2's non-saturating pair.
//
// D(x) = head(features(x_t′, t′)) with a frozen trunk; only the head learns from L_D, and only the
// generator from L_adv. Source: w2svd specification 1.7, equations 19 and 20.

package import Autodiff
package import DenseKernels
import Foundation
import Tensors

package struct AdversarialObjective: Sendable {
  package init() {}

  /// L_D = mean softplus(D(fake)) + mean softplus(−D(real)): trains the head.
  /// - Shapes: logits [B] each.
  package func discriminator<Scalar: KernelScalar>(
    fakeLogits: Value<Scalar>, realLogits: Value<Scalar>, on tape: Tape<Scalar>
  ) -> [ObjectiveTerm<Scalar>] {
    [softplus(of: fakeLogits, sign: 1, on: tape), softplus(of: realLogits, sign: -1, on: tape)]
  }

  /// L_adv = mean softplus(−D(x)): trains the generator.
  /// - Shapes: logits [B].
  package func generator<Scalar: KernelScalar>(
    logits: Value<Scalar>, on tape: Tape<Scalar>
  ) -> ObjectiveTerm<Scalar> {
    softplus(of: logits, sign: -1, on: tape)
  }

  /// mean softplus(sign · logit) and its gradient sign · σ(sign · logit) / B.
  private func softplus<Scalar: KernelScalar>(
    of logits: Value<Scalar>, sign: Double, on tape: Tape<Scalar>
  ) -> ObjectiveTerm<Scalar> {
    let signed = logits.tensor.doubles.map { sign * $0 }
    let count = Double(signed.count)
    let loss = signed.reduce(0) { $0 + max($1, 0) + log1p(exp(-abs($1))) } / count
    return ObjectiveTerm(
      loss: loss, value: logits,
      gradient: Tensor(
        rounding: signed.map { sign / (1 + exp(-$0)) / count }, shape: logits.shape,
        in: tape.arena, booking: Booking(tape.role, .activations)))
  }
}
