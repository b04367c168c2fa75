// What a LoRA adapter adapts: rank, alpha and the linear layers, under the keys of PEFT's
// adapter_config.json.

/// Sizes and places of an adapter.
package struct AdapterConfiguration: Hashable, Sendable {
  /// r, at least 1. Default 64.
  package var rank: Int
  /// a: the update is (a/r) B A. Default 64, so that a role's weight is its only factor.
  package var alpha: Double
  /// Module names without ".weight", as in the model they adapt.
  package var targets: [String]

  package init(rank: Int = 64, alpha: Double = 64, targets: [String]) {
    self.rank = rank
    self.alpha = alpha
    self.targets = targets
  }

  /// All attention and MLP linears of all blocks (spec §3).
  package init(
    rank: Int = 64, alpha: Double = 64, of model: any TransformerConfiguration
  ) {
    self.init(rank: rank, alpha: alpha, targets: model.adaptableModules)
  }

  /// a/r.
  package var scaling: Double { alpha / Double(rank) }
}

extension HunyuanVideoConfiguration {
  /// Attention and MLP linears of the double and single blocks, in the order of the network.
  package var adaptableModules: [String] {
    let double = [
      "attn.to_q", "attn.to_k", "attn.to_v", "attn.add_k_proj", "attn.add_v_proj",
      "attn.add_q_proj", "attn.to_out.0", "attn.to_add_out", "ff.net.0.proj", "ff.net.2",
      "ff_context.net.0.proj", "ff_context.net.2",
    ]
    let single = ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out"]
    return (0..<doubleBlockCount).flatMap { block in
      double.map { "transformer_blocks.\(block).\($0)" }
    }
      + (0..<singleBlockCount).flatMap { block in
        single.map { "single_transformer_blocks.\(block).\($0)" }
      }
  }
}
