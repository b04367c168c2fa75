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
      Layout("norm_out").linear("linear", [2 * width, width], zero: true).specifications
      + Layout("proj_out").linear("", [patchVolume * outChannels, width], zero: true).specifications
    return patch.specifications + refinerParameters + embeddingParameters
      + (0..<doubleBlockCount).flatMap(doubleBlockParameters)
      + (0..<singleBlockCount).flatMap(singleBlockParameters) + projection
  }

  /// The sum over all specifications; nothing is allocated.
  package var parameterCount: Int {
    parameterSpecifications.reduce(0) { $0 + $1.shape.reduce(1, *) }
  }

  private var refinerParameters: [ParameterSpecification] {
    let embedding = Layout("context_embedder.time_text_embed")
      .linear("timestep_embedder.linear_1", [width, Self.sinusoidWidth])
      .linear("timestep_embedder.linear_2", [width, width])
      .linear("text_embedder.linear_1", [width, textEmbeddingWidth])
      .linear("text_embedder.linear_2", [width, width])
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
    var layout = Layout("time_text_embed")
      .linear("timestep_embedder.linear_1", [width, Self.sinusoidWidth])
      .linear("timestep_embedder.linear_2", [width, width])
      .linear("text_embedder.linear_1", [width, pooledProjectionWidth])
      .linear("text_embedder.linear_2", [width, width])
    if guidanceEmbeds {
      layout =
        layout
        .linear("guidance_embedder.linear_1", [width, Self.sinusoidWidth])
        .linear("guidance_embedder.linear_2", [width, width])
    }
    return layout.specifications
  }

  private func doubleBlockParameters(_ index: Int) -> [ParameterSpecification] {
    Layout("transformer_blocks.\(index)")
      .linear("norm1.linear", [6 * width, width], zero: true)
      .linear("norm1_context.linear", [6 * width, width], zero: true)
      .gain("attn.norm_q", attentionHeadWidth)
      .gain("attn.norm_k", attentionHeadWidth)
      .linears(["attn.to_q", "attn.to_k", "attn.to_v"], [width, width])
      .linears(["attn.add_k_proj", "attn.add_v_proj", "attn.add_q_proj"], [width, width])
      .linears(["attn.to_out.0", "attn.to_add_out"], [width, width])
      .gain("attn.norm_added_q", attentionHeadWidth)
      .gain("attn.norm_added_k", attentionHeadWidth)
      .linear("ff.net.0.proj", [mlpWidth, width])
      .linear("ff.net.2", [width, mlpWidth])
      .linear("ff_context.net.0.proj", [mlpWidth, width])
      .linear("ff_context.net.2", [width, mlpWidth])
      .specifications
  }

  private func singleBlockParameters(_ index: Int) -> [ParameterSpecification] {
    Layout("single_transformer_blocks.\(index)")
      .gain("attn.norm_q", attentionHeadWidth)
      .gain("attn.norm_k", attentionHeadWidth)
      .linears(["attn.to_q", "attn.to_k", "attn.to_v"], [width, width])
      .linear("norm.linear", [3 * width, width], zero: true)
      .linear("proj_mlp", [mlpWidth, width])
      .linear("proj_out", [width, width + mlpWidth])
      .specifications
  }
}

/// Collects the parameters of one module.
struct Layout {
  private let path: String
  private(set) var specifications: [ParameterSpecification] = []

  init(_ path: String) { self.path = path }

  /// Weight and bias of a linear or patch layer; the first size is the output width.
  func linear(_ name: String, _ shape: [Int], zero: Bool = false) -> Layout {
    let inputWidth = shape.dropFirst().reduce(1, *)
    let start: Initialization =
      zero ? .zeros : .uniform(bound: 1 / Double(inputWidth).squareRoot())
    return adding([
      ParameterSpecification(full(name, "weight"), shape, start),
      ParameterSpecification(full(name, "bias"), [shape[0]], start),
    ])
  }

  func linears(_ names: [String], _ shape: [Int]) -> Layout {
    names.reduce(self) { $0.linear($1, shape) }
  }

  func layerNorm(_ name: String, _ width: Int) -> Layout {
    gain(name, width)
      .adding([ParameterSpecification(full(name, "bias"), [width], .zeros)])
  }

  func gain(_ name: String, _ width: Int) -> Layout {
    adding([ParameterSpecification(full(name, "weight"), [width], .ones)])
  }

  private func full(_ name: String, _ tensor: String) -> String {
    [path, name, tensor].filter { !$0.isEmpty }.joined(separator: ".")
  }

  private func adding(_ more: [ParameterSpecification]) -> Layout {
    var copy = self
    copy.specifications += more
    return copy
  }
}
