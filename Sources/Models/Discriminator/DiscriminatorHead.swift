// The trainable head of the discriminator: LayerNorm, D → hidden → 1 with SiLU. Its trunk is the frozen transformer
// up to the last double block, and the mean over its video tokens (`features`).
//
// Ranks that compute a pass together all have the features and run the head alike, and one of them counts the
// gradients of its parameters.
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

  /// Has `body` run the head, once or more, on features of passes with a sequence.
  package func inUse<Result>(
    tape: Tape<Scalar>, sequence: (any SequenceParallel<Scalar>)?, _ body: () -> Result
  ) -> Result {
    // The ranks that own it sum its gradients.
    guard sequence?.stage?.isFirst ?? true else { return body() }
    return tape.inBlock(
      "", of: [parameters], isDifferentiated: parameters.isTrainable, body)
  }

  /// One logit per sample, positive for real.
  /// - Shapes: features [B, D] → [B].
  package func forward(
    tape: Tape<Scalar>, features: Value<Scalar>,
    sequence: (any SequenceParallel<Scalar>)? = nil
  ) -> Value<Scalar> {
    let scope = LayerScope(tape, parameters, path: "discriminator")
      .with(sequence?.countsShared ?? true ? .whole : .countedElsewhere)
    let normalized = scope.layerNorm(
      "norm", features, epsilon: HunyuanVideoConfiguration.epsilon)
    return scope.mlp("linear_1", .silu, "linear_2", normalized).reshaped([features.shape[0]])
  }
}
