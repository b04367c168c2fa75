// Generator, fake and real over one tiny HunyuanVideo transformer with first frames and text.

import Autodiff
import Basics
import DenseKernels
import Diffusion
import Models
import Tensors

/// A transformer with the conditions of a batch.
struct TransformerDenoiser<Scalar: KernelScalar>: Denoiser {
  let model: ConditionedTransformer<Scalar>
  let conditions: [Condition<Scalar>]
  var adapter: Adapter<Scalar>?

  func velocity(
    of noisy: Value<Scalar>, times: [Double], on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    model.velocity(
      tape: tape, noisy: noisy, times: times, conditions: conditions, adapter: adapter)
  }
}

struct TinyRoles<Scalar: KernelScalar> {
  let bench = Bench<Scalar>()
  let base: ConditionedTransformer<Scalar>
  let generator: ConditionedTransformer<Scalar>
  let adapter: AdapterSet<Scalar>
  let conditions: [Condition<Scalar>]
  let sampleShape = [2, 2, 2, 4]

  /// - Parameter trained: whether B is random, as after some steps, or zero as at the start.
  init(trained: Bool) {
    var configuration = HunyuanVideoConfiguration()
    configuration.inChannels = 5
    configuration.outChannels = 2
    configuration.attentionHeadCount = 2
    configuration.attentionHeadWidth = 6
    configuration.ropeAxesWidths = [2, 2, 2]
    configuration.doubleBlockCount = 1
    configuration.singleBlockCount = 1
    configuration.refinerBlockCount = 1
    configuration.textEmbeddingWidth = 5
    configuration.pooledProjectionWidth = 3
    configuration.guidanceEmbeds = false
    // All weights random, so that no layer is the identity.
    let specifications = ConditionedTransformer<Scalar>.specifications(of: configuration).map {
      ParameterSpecification($0.name, $0.shape, .normal(deviation: 0.3))
    }
    let arena = bench.arena
    func network(_ role: MemoryRole, seed: UInt64) -> ConditionedTransformer<Scalar> {
      let set = ParameterSet<Scalar>(specifications, in: arena, role: role)
      set.initialize(seed: seed)
      return ConditionedTransformer(configuration, parameters: set)
    }
    base = network(.base, seed: 8)
    generator = network(.generator, seed: 9)
    adapter = AdapterSet(
      AdapterConfiguration(rank: 2, alpha: 2, of: configuration), adapting: specifications,
      in: arena, role: .fake)
    adapter.initialize(seed: 10)
    if trained {
      for (index, parameter) in adapter.parameters.parameters.enumerated() {
        let stream = RandomStream(seed: 12, purpose: .tests, sample: index)
        parameter.value.buffer.copy(
          from: stream.normals(count: parameter.value.count).map { Scalar(0.2 * Double($0)) })
      }
    }
    conditions = [
      Condition(
        reference: bench.normals([2, 2, 4], 50),
        text: TextCondition(
          embeddings: bench.normals([3, 5], 51), pooled: bench.normals([3], 52))),
      Condition(reference: bench.normals([2, 2, 4], 53)),
    ]
  }

  func latents(_ sample: Int) -> Tensor<Scalar> { bench.normals([2] + sampleShape, sample) }

  var generating: TransformerDenoiser<Scalar> {
    TransformerDenoiser(model: generator, conditions: conditions)
  }

  /// W with the adapter at a weight; nil is W alone.
  func scoring(_ weight: Double?, isConditional: Bool = true) -> TransformerDenoiser<Scalar> {
    TransformerDenoiser(
      model: base,
      conditions: isConditional ? conditions : conditions.map { _ in Condition() },
      adapter: weight.map { Adapter(adapter, weight: $0) })
  }

  /// The weak real DiT under guidance. (13)
  func guided(_ weight: Double?, scale: Double) -> GuidedDenoiser<Scalar> {
    GuidedDenoiser(
      conditional: scoring(weight), unconditional: scoring(weight, isConditional: false),
      scale: scale)
  }

  func matching(
    _ generated: Value<Scalar>, weak: Double, scale: Double, on tape: Tape<Scalar>
  ) -> DistributionMatching.Result<Scalar> {
    DistributionMatching().evaluate(
      generated: generated, noise: latents(2), times: [0.3, 0.8], fake: scoring(1),
      real: guided(weak, scale: scale), on: tape)
  }
}
