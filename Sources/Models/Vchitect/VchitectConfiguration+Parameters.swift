// All parameters of the transformer: names exactly as in the released state dict, shapes, and how they start.
//
// Start: the output projections of the temporal and cross branches at zero, so that the block is that of the
// image model on every frame (specification §3.5). What would come from the image model starts as in
// HunyuanVideo here: linear layers as PyTorch's, modulation and output at zero (adaLN-zero, DiT 2212.09748).
// Source: `Vchitect/Vchitect-2.0`, models/VchitectXL.py, models/blocks.py, models/attention.py.

package import Autodiff
package import DenseKernels
import Tensors

extension VchitectConfiguration {
  /// - Precondition: `validate()` found nothing.
  package var parameterSpecifications: [ParameterSpecification] {
    precondition(validate().isEmpty, validate().joined(separator: "; "))
    let entry =
      Layout("pos_embed").linear("proj", [width, inChannels, patchSize, patchSize]).specifications
      + Layout("time_text_embed")
      .conditionEmbedding(width: width, pooledWidth: pooledProjectionWidth).specifications
      + Layout("context_embedder").linear("", [width, textEmbeddingWidth]).specifications
    let exit =
      Layout("norm_out").linear("linear", [2 * width, width], zero: true).outputSpecifications
      + Layout("proj_out").linear("", [patchArea * outChannels, width], zero: true)
      .outputSpecifications
    return entry + (0..<blockCount).flatMap(blockParameters) + exit
  }

  /// Attention and MLP linears of all blocks, in the order of the network: what a LoRA adapts.
  package var adaptableModules: [String] {
    let suffix = ".weight"
    return parameterSpecifications.map(\.name).filter { name in
      name.hasPrefix("transformer_blocks.") && name.hasSuffix(suffix) && !name.contains(".norm1")
    }.map { String($0.dropLast(suffix.count)) }
  }

  /// Draws every parameter. The temporal and cross input projections begin as copies of the spatial ones,
  /// whose features match the text keys that they will meet (specification §3.5).
  package func initialize<Scalar: KernelScalar>(_ parameters: ParameterSet<Scalar>, seed: UInt64) {
    let originals = [
      "to_q_cross": "to_q", "to_q_temp": "to_q", "to_k_temp": "to_k", "to_v_temp": "to_v",
    ]
    parameters.initialize(seed: seed) { entries in
      for copy in parameters.parameters[entries] {
        // transformer_blocks.<index>.attn.<module>.<tensor>
        var path = copy.name.split(separator: ".").map(String.init)
        guard path.count == 5, let original = originals[path[3]] else { continue }
        path[3] = original
        copy.value.buffer.copy(from: parameters[path.joined(separator: ".")].value.buffer)
      }
    }
  }

  private func blockParameters(_ index: Int) -> [ParameterSpecification] {
    let isLast = index == blockCount - 1
    let (square, mlpWidth) = ([width, width], Self.mlpRatio * width)
    var layout = Layout("transformer_blocks.\(index)")
      .linear("norm1.linear", [6 * width, width], zero: true, cut: .rows)
      .linear("norm1_context.linear", [(isLast ? 2 : 6) * width, width], zero: true, cut: .rows)
      .linears(["attn.to_q", "attn.to_k", "attn.to_v"], square, cut: .rows)
    if variant == .v2 {
      layout = layout.linears(
        ["attn.to_q_cross", "attn.to_q_temp", "attn.to_k_temp", "attn.to_v_temp"], square,
        cut: .rows)
    }
    let heads = ParameterCut.columns([width])
    layout =
      layout
      .linears(["attn.add_k_proj", "attn.add_v_proj", "attn.add_q_proj"], square, cut: .rows)
      .linear("attn.to_out.0", square, cut: heads)
    if !isLast { layout = layout.linear("attn.to_add_out", square, cut: heads) }
    if variant == .v2 {
      for name in ["attn.to_out_temporal", "attn.to_add_out_temporal"] {
        layout = layout.linear(name, square, zero: true, cut: heads)
      }
      // What it gives goes on through to_out.0 and to_add_out, by heads again.
      layout = layout.linear(
        "attn.to_out_context", square, zero: true, cut: heads, cutsOutputs: true)
    }
    layout =
      layout
      .linear("ff.net.0.proj", [mlpWidth, width], cut: .rows)
      .linear("ff.net.2", [width, mlpWidth], cut: .columns([mlpWidth]))
    guard !isLast else { return layout.blockSpecifications }
    return
      layout
      .linear("ff_context.net.0.proj", [mlpWidth, width], cut: .rows)
      .linear("ff_context.net.2", [width, mlpWidth], cut: .columns([mlpWidth]))
      .blockSpecifications
  }
}
