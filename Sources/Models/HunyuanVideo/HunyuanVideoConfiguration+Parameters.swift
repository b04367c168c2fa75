// All parameters of the transformer: names exactly as in diffusers' state dict, shapes, and how they
// start when a model is trained from random weights.
//
// Start: linear and patch layers as PyTorch's (uniform ±1/√fan-in, weight and bias), norms at one. The
// modulation of every block, the refiner's gates, the output's modulation and projection start at
// zero (adaLN-zero, DiT 2212.09748 §3.2): each block is the identity and the model predicts zero.

package import Autodiff

extension HunyuanVideoConfiguration {
  /// - Precondition: `validate()` found nothing.
  package var parameterSpecifications: [ParameterSpecification] {
    precondition(validate().isEmpty, validate().joined(separator: "; "))
    let patch =
      Layout("x_embedder.proj")
      .linear("", [width, inChannels, temporalPatchSize, patchSize, patchSize])
    let projection =
      Layout("norm_out").linear("linear", [2 * width, width], zero: true).outputSpecifications
      + Layout("proj_out").linear("", [patchVolume * outChannels, width], zero: true)
      .outputSpecifications
    return patch.specifications + refinerParameters + embeddingParameters
      + (0..<doubleBlockCount).flatMap(doubleBlockParameters)
      + (0..<singleBlockCount).flatMap(singleBlockParameters) + projection
  }

  private var refinerParameters: [ParameterSpecification] {
    let embedding = Layout("context_embedder.time_text_embed")
      .conditionEmbedding(width: width, pooledWidth: textEmbeddingWidth)
    let projection = Layout("context_embedder.proj_in").linear("", [width, textEmbeddingWidth])
    let mlpWidth = width * Self.refinerRatio
    let blocks = (0..<refinerBlockCount).flatMap { index in
      Layout("context_embedder.token_refiner.refiner_blocks.\(index)")
        .layerNorm("norm1", width)
        .linears(["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"], [width, width])
        .layerNorm("norm2", width)
        .linear("ff.net.0.proj", [mlpWidth, width])
        .linear("ff.net.2", [width, mlpWidth])
        .linear("norm_out.linear", [2 * width, width], zero: true)
        .specifications
    }
    return embedding.specifications + projection.specifications + blocks
  }

  private var embeddingParameters: [ParameterSpecification] {
    Layout("time_text_embed")
      .conditionEmbedding(
        width: width, pooledWidth: pooledProjectionWidth, hasGuidance: guidanceEmbeds
      ).specifications
  }

  private func doubleBlockParameters(_ index: Int) -> [ParameterSpecification] {
    Layout("transformer_blocks.\(index)")
      .linear("norm1.linear", [6 * width, width], zero: true, cut: .rows)
      .linear("norm1_context.linear", [6 * width, width], zero: true, cut: .rows)
      .gain("attn.norm_q", attentionHeadWidth)
      .gain("attn.norm_k", attentionHeadWidth)
      .linears(["attn.to_q", "attn.to_k", "attn.to_v"], [width, width], cut: .rows)
      .linears(
        ["attn.add_k_proj", "attn.add_v_proj", "attn.add_q_proj"], [width, width], cut: .rows
      )
      .linears(["attn.to_out.0", "attn.to_add_out"], [width, width], cut: .columns([width]))
      .gain("attn.norm_added_q", attentionHeadWidth)
      .gain("attn.norm_added_k", attentionHeadWidth)
      .linear("ff.net.0.proj", [mlpWidth, width], cut: .rows)
      .linear("ff.net.2", [width, mlpWidth], cut: .columns([mlpWidth]))
      .linear("ff_context.net.0.proj", [mlpWidth, width], cut: .rows)
      .linear("ff_context.net.2", [width, mlpWidth], cut: .columns([mlpWidth]))
      .blockSpecifications
  }

  private func singleBlockParameters(_ index: Int) -> [ParameterSpecification] {
    Layout("single_transformer_blocks.\(index)")
      .gain("attn.norm_q", attentionHeadWidth)
      .gain("attn.norm_k", attentionHeadWidth)
      .linears(["attn.to_q", "attn.to_k", "attn.to_v"], [width, width], cut: .rows)
      .linear("norm.linear", [3 * width, width], zero: true, cut: .rows)
      .linear("proj_mlp", [mlpWidth, width], cut: .rows)
      .linear("proj_out", [width, width + mlpWidth], cut: .columns([width, mlpWidth]))
      .blockSpecifications
  }
}
