// What a clip is conditioned on.

package import DenseKernels
package import Tensors

/// The condition of one sample; what is nil is dropped: `Condition()` is the null condition of CFG.
package struct Condition<Scalar: KernelScalar> {
  /// Latent of the first frame [C, H, W].
  package var reference: Tensor<Scalar>?
  /// Text; nil stands for the learned null token.
  package var text: TextCondition<Scalar>?

  package init(reference: Tensor<Scalar>? = nil, text: TextCondition<Scalar>? = nil) {
    self.reference = reference
    self.text = text
  }
}

/// Embedded text of one sample.
package struct TextCondition<Scalar: KernelScalar> {
  /// [T, E].
  package let embeddings: Tensor<Scalar>
  /// T, nonzero for a valid token.
  package let mask: [UInt8]
  /// [P].
  package let pooled: Tensor<Scalar>

  /// - Parameter mask: nil means that all tokens are valid.
  /// - Precondition: at least one token is valid.
  package init(embeddings: Tensor<Scalar>, mask: [UInt8]? = nil, pooled: Tensor<Scalar>) {
    let mask = mask ?? Array(repeating: 1, count: embeddings.shape[0])
    precondition(
      embeddings.shape.count == 2 && mask.count == embeddings.shape[0]
        && mask.contains { $0 != 0 },
      "a text of shape \(embeddings.shape) with a mask of \(mask.count) elements")
    self.embeddings = embeddings
    self.mask = mask
    self.pooled = pooled
  }
}
