// The three networks of a run and what binds them to a condition (specification 1.2).
//
// Real and fake are one set of base weights W; the adapter is the fake's, with a run-time weight:
// 1 makes the fake DiT (7), alpha_weak the weakly shifted real DiT (8), none the plain teacher.

package import Autodiff
import Basics
import DenseKernels
import Diffusion
package import Models
package import Tensors

package final class Networks {
  package let configuration: HunyuanVideoConfiguration
  /// W: trained in the teach phase, frozen afterwards.
  package let base: ConditionedTransformer<Float>
  package private(set) var generator: ConditionedTransformer<Float>?
  package private(set) var adapter: AdapterSet<Float>?
  package private(set) var head: DiscriminatorHead<Float>?

  private let specifications: [ParameterSpecification]
  private let arena: Arena

  package init(_ configuration: HunyuanVideoConfiguration, nullTokenCount: Int, arena: Arena) {
    self.configuration = configuration
    self.arena = arena
    specifications = ConditionedTransformer<Float>.specifications(
      of: configuration, nullTokenCount: nullTokenCount)
    base = ConditionedTransformer(
      configuration, parameters: ParameterSet(specifications, in: arena, role: .base))
  }

  /// Adds the generator as a copy of W.
  package func addGenerator() -> ConditionedTransformer<Float> {
    let parameters = ParameterSet<Float>(specifications, in: arena, role: .generator)
    parameters.values.copy(from: base.parameters.values)
    let generator = ConditionedTransformer(configuration, parameters: parameters)
    self.generator = generator
    return generator
  }

  /// Adds the fake DiT's adapter, which changes nothing yet.
  package func addAdapter(rank: Int, alpha: Double, seed: UInt64) -> AdapterSet<Float> {
    let adapter = AdapterSet<Float>(
      AdapterConfiguration(rank: rank, alpha: alpha, of: configuration),
      adapting: specifications, in: arena, role: .fake)
    adapter.initialize(seed: seed)
    self.adapter = adapter
    return adapter
  }

  /// Adds the discriminator's head on the features of W.
  package func addHead(width: Int, seed: UInt64) -> DiscriminatorHead<Float> {
    let parameters = ParameterSet<Float>(
      DiscriminatorHead<Float>.specifications(
        featureWidth: configuration.width, hiddenWidth: width), in: arena, role: .fake)
    parameters.initialize(seed: seed, purpose: .headInitialization)
    let head = DiscriminatorHead(parameters: parameters)
    self.head = head
    return head
  }

  /// Another set of weights of the same shape, for averages.
  package func copyOfWeights(role: MemoryRole) -> ConditionedTransformer<Float> {
    ConditionedTransformer(
      configuration, parameters: ParameterSet(specifications, in: arena, role: role))
  }
}

/// A network with the conditions of a batch, as samplers and objectives see it.
package struct BoundDenoiser: Denoiser {
  package let model: ConditionedTransformer<Float>
  package let conditions: [Condition<Float>]
  package let adapter: Adapter<Float>?
  package let recompute: Bool
  package let sequence: (any SequenceParallel<Float>)?

  /// - Parameter sequence: the ranks that share the tokens of this pass; nil runs it alone.
  package init(
    _ model: ConditionedTransformer<Float>, conditions: [Condition<Float>],
    adapter: Adapter<Float>? = nil, recompute: Bool = false,
    sequence: (any SequenceParallel<Float>)? = nil
  ) {
    self.model = model
    self.conditions = conditions
    self.adapter = adapter
    self.recompute = recompute
    self.sequence = sequence
  }

  package func velocity(
    of noisy: Value<Float>, times: [Double], on tape: Tape<Float>
  ) -> Value<Float> {
    model.velocity(
      tape: tape, noisy: noisy, times: times, conditions: conditions, adapter: adapter,
      recompute: recompute, sequence: sequence)
  }
}
