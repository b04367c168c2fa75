// The network side of the seam over all transformers: one pass over latents, and its features.

package import Autodiff
package import DenseKernels

/// A transformer over a set of parameters. It holds no state of a run: several of them, or several tapes, may
/// share one set.
package protocol DiffusionTransformer<Scalar>: AnyObject {
  associatedtype Scalar: KernelScalar

  var parameters: ParameterSet<Scalar> { get }

  /// The predicted velocity.
  /// - Shapes: hidden states [B, C, F, H, W] → [B, Cout, F, H, W].
  /// - Parameters:
  ///   - inputs: gone when the first block begins.
  ///   - recomputedShare: share of the blocks, evenly spread, that store only their inputs and run again in
  ///     `backward`.
  ///   - sequence: runs the blocks on a part of the tokens; inputs and result are whole.
  /// - Precondition: the configuration finds no `problems(of:)` the inputs.
  func forward(
    tape: Tape<Scalar>, _ inputs: consuming TransformerInputs<Scalar>,
    adapter: Adapter<Scalar>?, recomputedShare: Double, sequence: (any SequenceParallel<Scalar>)?
  ) -> Value<Scalar>

  /// The mean of the video tokens after the last block of two streams; the rest of the network is not run.
  /// - Shapes: → [B, D].
  /// - Parameter sequence: as for `forward`; the result is whole.
  /// - Source: the W2SVD figure's tap for the discriminator.
  func features(
    tape: Tape<Scalar>, _ inputs: consuming TransformerInputs<Scalar>,
    adapter: Adapter<Scalar>?, recomputedShare: Double, sequence: (any SequenceParallel<Scalar>)?
  ) -> Value<Scalar>
}

extension HunyuanVideoTransformer: DiffusionTransformer {}
