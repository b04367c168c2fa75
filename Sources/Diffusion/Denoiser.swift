// What samplers and objectives see of a network: a velocity field bound to its condition.

package import Autodiff
package import DenseKernels
import Tensors

/// v(x_t, t): a network together with its condition, its adapter and that adapter's weight.
package protocol Denoiser<Scalar> {
  associatedtype Scalar: KernelScalar

  /// - Shapes: noisy [B, …], times B → [B, …].
  func velocity(
    of noisy: Value<Scalar>, times: [Double], on tape: Tape<Scalar>
  ) -> Value<Scalar>
}

/// Classifier-free guidance: v_null + w (v_cond − v_null). (13)
package struct GuidedDenoiser<Scalar: KernelScalar>: Denoiser {
  package let conditional: any Denoiser<Scalar>
  package let unconditional: any Denoiser<Scalar>
  /// w; 1 is no guidance and needs only the conditional pass.
  package let scale: Double

  package init(
    conditional: any Denoiser<Scalar>, unconditional: any Denoiser<Scalar>, scale: Double
  ) {
    self.conditional = conditional
    self.unconditional = unconditional
    self.scale = scale
  }

  package func velocity(
    of noisy: Value<Scalar>, times: [Double], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let conditional = conditional.velocity(of: noisy, times: times, on: tape)
    guard scale != 1 else { return conditional }
    let unconditional = unconditional.velocity(of: noisy, times: times, on: tape)
    return tape.combine(scale, conditional, 1 - scale, unconditional)
  }
}
