// The trainable head of the discriminator: mean over video tokens, LayerNorm, D → hidden → 1 with SiLU.
// Its trunk is the frozen transformer up to the last double block (`features`).
//
// Source: spec §1.7, eq. 19.

package import Autodiff
package import DenseKernels

/// Scores features as real or generated.
package final class DiscriminatorHead<Scalar: KernelScalar> {
  package let parameters: ParameterSet<Scalar>

  /// - Precondition: the set was made from `specifications`.
  package init(parameters: ParameterSet<Scalar>) { self.parameters = parameters }

  /// - Parameter hiddenWidth: width of the MLP; 512 for D = 3072.
  package static func specifications(
    featureWidth: Int, hiddenWidth: Int = 512
  ) -> [ParameterSpecification] {
    Layout("discriminator").layerNorm("norm", featureWidth)
      .linear("linear_1", [hiddenWidth, featureWidth])
      .linear("linear_2", [1, hiddenWidth])
      .specifications
  }

  /// One logit per sample, positive for real.
  /// - Shapes: features [B, L, D] → [B].
  package func forward(tape: Tape<Scalar>, features: Value<Scalar>) -> Value<Scalar> {
    let scope = LayerScope(tape, parameters, path: "discriminator")
    let (batch, tokenCount) = (features.shape[0], features.shape[1])
    let mean = tape.weightedTokenSum(
      features,
      weights: Array(repeating: 1 / Scalar(tokenCount), count: batch * tokenCount))  // [B, D]
    let normalized = scope.layerNorm(
      "norm", mean, epsilon: HunyuanVideoConfiguration.epsilon)
    return scope.mlp("linear_1", .silu, "linear_2", normalized).reshaped([batch])
  }
}
