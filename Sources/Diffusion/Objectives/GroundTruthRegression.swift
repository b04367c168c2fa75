// The plain reading of the ground-truth term: the squared distance between sample and truth.
//
// Source: w2svd specification 1.6, the alternative to equation 18: the page calls the term a
// "Reg. loss" and gives no formula.

package import Autodiff
import Basics
package import DenseKernels
package import Tensors

/// The two readings of the ground-truth term.
package enum GroundTruthTerm: String, CaseIterable, Codable, Sendable {
  /// `DistributionMatching.groundTruth`: from the fake DiT's estimate to the truth, normalized. (18)
  case matched
  /// `GroundTruthRegression`.
  case plain
}

/// mean over all elements of ‖x − x_gt‖².
package struct GroundTruthRegression: Sendable {
  package init() {}

  /// - Shapes: generated, truth [B, …].
  package func evaluate<Scalar: KernelScalar>(
    generated: Value<Scalar>, truth: Tensor<Scalar>, on tape: Tape<Scalar>
  ) -> ObjectiveTerm<Scalar> {
    require(
      generated.shape == truth.shape, "a sample \(generated.shape) for the truth \(truth.shape)")
    var gradient = generated.tensor.doubles
    let truth = truth.doubles
    let scale = 1 / Double(gradient.count)
    var loss = 0.0
    for index in gradient.indices {
      let residual = gradient[index] - truth[index]
      loss += residual * residual
      gradient[index] = 2 * residual * scale
    }
    return ObjectiveTerm(
      loss: loss * scale, value: generated,
      gradient: Tensor(
        rounding: gradient, shape: generated.shape, in: tape.arena,
        booking: Booking(tape.role, .activations)))
  }
}
