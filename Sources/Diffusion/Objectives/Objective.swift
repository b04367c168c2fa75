// What every objective gives: its value and where its gradient enters the tape.

package import Autodiff
import Basics
package import DenseKernels
package import Tensors

/// A loss, computed in Float64, with its gradient on one value of the tape.
package struct ObjectiveTerm<Scalar: KernelScalar> {
  /// The loss, a mean over the samples of the microbatch.
  package let loss: Double
  /// What the gradient belongs to.
  package let value: Value<Scalar>
  /// ∂loss/∂value.
  package let gradient: Tensor<Scalar>

  package init(loss: Double, value: Value<Scalar>, gradient: Tensor<Scalar>) {
    self.loss = loss
    self.value = value
    self.gradient = gradient
  }

  /// Differentiates Σ weight · term into parameters.
  package static func backward(
    _ terms: [(weight: Double, term: ObjectiveTerm)], on tape: Tape<Scalar>
  ) {
    tape.backward(
      terms.filter { $0.weight != 0 }.map { weight, term in
        guard weight != 1 else { return (term.value, term.gradient) }
        let scaled = tape.scratch(term.gradient.shape)
        Scalar.combine(
          Scalar(weight), term.gradient.buffer, 0, term.gradient.buffer, into: scaled.buffer)
        return (term.value, scaled)
      })
    withExtendedLifetime(terms) {}
  }
}

/// mean over all elements of ‖v − u‖² with u = ε − x₀: the loss of W itself and of the critic. (10)
package struct FlowMatchingObjective: Sendable {
  package init() {}

  /// - Shapes: prediction, clean, noise [B, …].
  package func evaluate<Scalar: KernelScalar>(
    prediction: Value<Scalar>, clean: Tensor<Scalar>, noise: Tensor<Scalar>, on tape: Tape<Scalar>
  ) -> ObjectiveTerm<Scalar> {
    let (v, x, epsilon) = (prediction.tensor.doubles, clean.doubles, noise.doubles)
    require(
      v.count == x.count && x.count == epsilon.count,
      "prediction \(prediction.shape), clean \(clean.shape), noise \(noise.shape)")
    let scale = 1 / Double(v.count)
    var loss = 0.0
    var gradient = v
    for index in v.indices {
      let residual = v[index] - (epsilon[index] - x[index])
      loss += residual * residual
      gradient[index] = 2 * residual * scale
    }
    return ObjectiveTerm(
      loss: loss * scale, value: prediction,
      gradient: Tensor(
        rounding: gradient, shape: prediction.shape, in: tape.arena,
        booking: Booking(tape.role, .activations)))
  }
}
