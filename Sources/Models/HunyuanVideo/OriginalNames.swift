// Where each parameter lies in a checkpoint under HunyuanVideo's original names, which fuse what
// diffusers splits: query, key and value (and a single block's MLP) are one layer there, and the output's
// modulation has its shift before its scale. Names and row ranges only: a pure function.
//
// A low-rank adapter of a fused layer has no counterpart of the same rank here; adapters are not mapped.
//
// Source: HunyuanVideo, `hyvideo/modules/models.py`; diffusers, `convert_hunyuan_video_to_diffusers.py`.

/// Rows of an original tensor that make up one parameter, in order.
package struct OriginalRows: Hashable, Sendable {
  package let name: String
  /// Ranges of the first dimension; joined they are the parameter.
  package let ranges: [Range<Int>]
}

extension HunyuanVideoConfiguration {
  /// The rows of the original checkpoint behind a parameter of `parameterSpecifications`; nil for a
  /// name that is none of them.
  package func originalRows(of name: String) -> OriginalRows? {
    guard let dot = name.lastIndex(of: ".") else { return nil }
    let module = String(name[..<dot])
    guard let layer = originalLayer(of: module) else { return nil }
    return OriginalRows(name: layer.module + name[dot...], ranges: layer.ranges)
  }

  private typealias Layer = (module: String, ranges: [Range<Int>])

  private func originalLayer(of module: String) -> Layer? {
    if let layer = topLayers[module] { return layer }
    let stacks: [(prefix: String, original: String, count: Int, layers: [String: Layer])] = [
      (
        "context_embedder.token_refiner.refiner_blocks.", "txt_in.individual_token_refiner.blocks.",
        refinerBlockCount, refinerLayers
      ),
      ("transformer_blocks.", "double_blocks.", doubleBlockCount, doubleLayers),
      ("single_transformer_blocks.", "single_blocks.", singleBlockCount, singleLayers),
    ]
    for stack in stacks where module.hasPrefix(stack.prefix) {
      let rest = module.dropFirst(stack.prefix.count)
      guard let dot = rest.firstIndex(of: "."), let index = Int(rest[..<dot]),
        (0..<stack.count).contains(index),
        let layer = stack.layers[String(rest[rest.index(after: dot)...])]
      else { return nil }
      return ("\(stack.original)\(index).\(layer.module)", layer.ranges)
    }
    return nil
  }

  private var topLayers: [String: Layer] {
    var layers: [String: Layer] = [
      "x_embedder.proj": ("img_in.proj", [0..<width]),
      "context_embedder.proj_in": ("txt_in.input_embedder", [0..<width]),
      "norm_out.linear": ("final_layer.adaLN_modulation.1", [width..<(2 * width), 0..<width]),
      "proj_out": ("final_layer.linear", [0..<(patchVolume * outChannels)]),
    ]
    let pairs = [
      (
        "context_embedder.time_text_embed.timestep_embedder", "txt_in.t_embedder.mlp.0",
        "txt_in.t_embedder.mlp.2"
      ),
      (
        "context_embedder.time_text_embed.text_embedder", "txt_in.c_embedder.linear_1",
        "txt_in.c_embedder.linear_2"
      ),
      ("time_text_embed.timestep_embedder", "time_in.mlp.0", "time_in.mlp.2"),
      ("time_text_embed.text_embedder", "vector_in.in_layer", "vector_in.out_layer"),
    ]
    let guidance = ("time_text_embed.guidance_embedder", "guidance_in.mlp.0", "guidance_in.mlp.2")
    for (module, first, second) in pairs + (guidanceEmbeds ? [guidance] : []) {
      layers["\(module).linear_1"] = (first, [0..<width])
      layers["\(module).linear_2"] = (second, [0..<width])
    }
    return layers
  }

  private var refinerLayers: [String: Layer] {
    [
      "norm1": ("norm1", [0..<width]), "norm2": ("norm2", [0..<width]),
      "attn.to_q": ("self_attn_qkv", [third(0)]), "attn.to_k": ("self_attn_qkv", [third(1)]),
      "attn.to_v": ("self_attn_qkv", [third(2)]),
      "attn.to_out.0": ("self_attn_proj", [0..<width]),
      "ff.net.0.proj": ("mlp.fc1", [0..<(Self.refinerRatio * width)]),
      "ff.net.2": ("mlp.fc2", [0..<width]),
      "norm_out.linear": ("adaLN_modulation.1", [0..<(2 * width)]),
    ]
  }

  private var doubleLayers: [String: Layer] {
    var layers: [String: Layer] = [:]
    let streams = [
      (
        "img", "norm1.linear", ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"], "to_out.0", "ff"
      ),
      (
        "txt", "norm1_context.linear", ["add_q_proj", "add_k_proj", "add_v_proj"],
        ["norm_added_q", "norm_added_k"], "to_add_out", "ff_context"
      ),
    ]
    for (stream, modulation, projections, norms, output, mlp) in streams {
      layers[modulation] = ("\(stream)_mod.linear", [0..<(6 * width)])
      for (index, projection) in projections.enumerated() {
        layers["attn.\(projection)"] = ("\(stream)_attn_qkv", [third(index)])
      }
      for (norm, letter) in zip(norms, ["q", "k"]) {
        layers["attn.\(norm)"] = ("\(stream)_attn_\(letter)_norm", [0..<attentionHeadWidth])
      }
      layers["attn.\(output)"] = ("\(stream)_attn_proj", [0..<width])
      layers["\(mlp).net.0.proj"] = ("\(stream)_mlp.fc1", [0..<mlpWidth])
      layers["\(mlp).net.2"] = ("\(stream)_mlp.fc2", [0..<width])
    }
    return layers
  }

  private var singleLayers: [String: Layer] {
    [
      "attn.norm_q": ("q_norm", [0..<attentionHeadWidth]),
      "attn.norm_k": ("k_norm", [0..<attentionHeadWidth]),
      "attn.to_q": ("linear1", [third(0)]), "attn.to_k": ("linear1", [third(1)]),
      "attn.to_v": ("linear1", [third(2)]),
      "proj_mlp": ("linear1", [(3 * width)..<(3 * width + mlpWidth)]),
      "proj_out": ("linear2", [0..<width]),
      "norm.linear": ("modulation.linear", [0..<(3 * width)]),
    ]
  }

  /// Rows of the query (0), key (1) or value (2) in a fused layer.
  private func third(_ index: Int) -> Range<Int> { (index * width)..<((index + 1) * width) }
}
