// Time, guidance and pooled text as one vector per sample.

import Autodiff
import DenseKernels
import Tensors

struct ConditionEmbedding {
  let configuration: HunyuanVideoConfiguration

  /// - Shapes: pooled [B, P] → [B, D].
  func forward<Scalar>(
    _ scope: LayerScope<Scalar>, timestep: [Double], pooled: Value<Scalar>, guidance: [Double]?
  ) -> Value<Scalar> {
    let tape = scope.tape
    var embedding = sinusoidal(scope("timestep_embedder"), timestep)
    if configuration.guidanceEmbeds, let guidance {
      embedding = tape.add(embedding, sinusoidal(scope("guidance_embedder"), guidance))
    }
    let text = scope("text_embedder").mlp("linear_1", .silu, "linear_2", pooled)
    return tape.add(embedding, text)
  }

  private func sinusoidal<Scalar>(
    _ scope: LayerScope<Scalar>, _ times: [Double]
  ) -> Value<Scalar> {
    let width = HunyuanVideoConfiguration.sinusoidWidth
    let tensor = scope.tape.result([times.count, width])
    tensor.buffer.copy(from: SinusoidalEmbedding.elements(of: times, width: width))
    return scope.mlp("linear_1", .silu, "linear_2", Value(constant: tensor))
  }
}
