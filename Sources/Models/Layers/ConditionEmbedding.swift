// Time, guidance and pooled text as one vector per sample.

import Autodiff
import DenseKernels
import Tensors

extension LayerScope {
  /// MLP(sinusoid(time)) + MLP(pooled text), and + MLP(sinusoid(guidance)) where there is one.
  /// - Shapes: pooled [B, P] → [B, D].
  /// - Source: diffusers, `CombinedTimestepTextProjEmbeddings` and the one with guidance.
  func conditionEmbedding(
    timestep: [Double], pooled: Value<Scalar>, guidance: [Double]? = nil
  ) -> Value<Scalar> {
    var embedding = self("timestep_embedder").sinusoidal(timestep)
    if let guidance {
      embedding = tape.add(embedding, self("guidance_embedder").sinusoidal(guidance))
    }
    let text = self("text_embedder").mlp("linear_1", .silu, "linear_2", pooled)
    return tape.add(embedding, text)
  }

  private func sinusoidal(_ times: [Double]) -> Value<Scalar> {
    let width = SinusoidalEmbedding.standardWidth
    let tensor = tape.result([times.count, width])
    tensor.buffer.copy(from: SinusoidalEmbedding.elements(of: times, width: width))
    return mlp("linear_1", .silu, "linear_2", Value(constant: tensor))
  }
}

extension Layout {
  /// The parameters of a `conditionEmbedding`.
  func conditionEmbedding(width: Int, pooledWidth: Int, hasGuidance: Bool = false) -> Layout {
    let layout =
      linear("timestep_embedder.linear_1", [width, SinusoidalEmbedding.standardWidth])
      .linear("timestep_embedder.linear_2", [width, width])
      .linear("text_embedder.linear_1", [width, pooledWidth])
      .linear("text_embedder.linear_2", [width, width])
    guard hasGuidance else { return layout }
    return
      layout
      .linear("guidance_embedder.linear_1", [width, SinusoidalEmbedding.standardWidth])
      .linear("guidance_embedder.linear_2", [width, width])
  }
}
