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
  package let configuration: any TransformerConfiguration
  /// W: trained in the teach phase, frozen afterwards.
  package let base: ConditionedTransformer<Float>
  package private(set) var generator: ConditionedTransformer<Float>?
  package private(set) var adapter: AdapterSet<Float>?
  package private(set) var head: DiscriminatorHead<Float>?

  private let specifications: [ParameterSpecification]
  private let makeParameters: ([ParameterSpecification], MemoryRole) -> ParameterSet<Float>

  /// Networks that are whole in memory.
  package convenience init(
    _ configuration: any TransformerConfiguration, nullTokenCount: Int, arena: Arena
  ) {
    self.init(configuration, nullTokenCount: nullTokenCount) {
      ParameterSet($0, in: arena, role: $1)
    }
  }

  /// - Parameter makeParameters: allocates the parameters of a network, zeroed.
  package init(
    _ configuration: any TransformerConfiguration, nullTokenCount: Int,
    makeParameters: @escaping ([ParameterSpecification], MemoryRole) -> ParameterSet<Float>
  ) {
    self.configuration = configuration
    self.makeParameters = makeParameters
    specifications = ConditionedTransformer<Float>.specifications(
      of: configuration, nullTokenCount: nullTokenCount)
    base = ConditionedTransformer(
      configuration, parameters: makeParameters(specifications, .base))
  }

  /// Networks on a W that is there already.
  package init(
    _ configuration: any TransformerConfiguration, base: ParameterSet<Float>,
    makeParameters: @escaping ([ParameterSpecification], MemoryRole) -> ParameterSet<Float>
  ) {
    self.configuration = configuration
    self.makeParameters = makeParameters
    specifications = base.specifications
    self.base = ConditionedTransformer(configuration, parameters: base)
  }

  /// Adds the generator, zeroed; it is to start as a copy of W.
  package func addGenerator() -> ConditionedTransformer<Float> {
    let generator = addWeights(role: .generator)
    self.generator = generator
    return generator
  }

  /// Adds a generator that is there already.
  package func addGenerator(_ parameters: ParameterSet<Float>) {
    generator = ConditionedTransformer(configuration, parameters: parameters)
  }

  /// Adds the fake DiT's adapter, which changes nothing yet.
  package func addAdapter(rank: Int, alpha: Double, seed: UInt64) -> AdapterSet<Float> {
    let adapter = addAdapter(rank: rank, alpha: alpha) { makeParameters($0, .fake) }
    adapter.initialize(seed: seed)
    return adapter
  }

  /// Adds an adapter that has learned already.
  /// - Parameter makeParameters: its parameters, of these names and shapes.
  package func addAdapter(
    rank: Int, alpha: Double,
    makeParameters: ([ParameterSpecification]) throws -> ParameterSet<Float>
  ) rethrows -> AdapterSet<Float> {
    let adapted = AdapterConfiguration(rank: rank, alpha: alpha, of: configuration)
    let adapter = AdapterSet<Float>(
      adapted,
      parameters: try makeParameters(adapted.parameterSpecifications(adapting: specifications)))
    self.adapter = adapter
    return adapter
  }

  /// Adds the discriminator's head on the features of W.
  package func addHead(width: Int, seed: UInt64) -> DiscriminatorHead<Float> {
    let parameters = makeParameters(
      DiscriminatorHead<Float>.specifications(
        featureWidth: configuration.width, hiddenWidth: width), .fake)
    parameters.initialize(seed: seed, purpose: .headInitialization)
    let head = DiscriminatorHead(parameters: parameters)
    self.head = head
    return head
  }

  /// Another set of weights of the same shape, zeroed.
  package func addWeights(role: MemoryRole) -> ConditionedTransformer<Float> {
    ConditionedTransformer(configuration, parameters: makeParameters(specifications, role))
  }
}

/// A network with the conditions of a batch, as samplers and objectives see it.
package struct BoundDenoiser: Denoiser {
  package let model: ConditionedTransformer<Float>
  package let conditions: [Condition<Float>]
  package let adapter: Adapter<Float>?
  package let recomputedShare: Double
  package let sequence: (any SequenceParallel<Float>)?

  /// - Parameter sequence: the ranks that share the tokens of this pass; nil runs it alone.
  package init(
    _ model: ConditionedTransformer<Float>, conditions: [Condition<Float>],
    adapter: Adapter<Float>? = nil, recomputedShare: Double = 0,
    sequence: (any SequenceParallel<Float>)? = nil
  ) {
    self.model = model
    self.conditions = conditions
    self.adapter = adapter
    self.recomputedShare = recomputedShare
    self.sequence = sequence
  }

  package func velocity(
    of noisy: Value<Float>, times: [Double], on tape: Tape<Float>
  ) -> Value<Float> {
    model.velocity(
      tape: tape, noisy: noisy, times: times, conditions: conditions, adapter: adapter,
      recomputedShare: recomputedShare, sequence: sequence)
  }
}
