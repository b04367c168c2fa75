import Autodiff
import DenseKernels
import Foundation
import Models
import Tensors
import Testing

struct OriginalNamesTests {
  /// Names of the original checkpoint, from its own code; `#` stands for a block's number.
  static let originalModules: Set<String> = [
    "img_in.proj", "txt_in.input_embedder", "txt_in.t_embedder.mlp.0", "txt_in.t_embedder.mlp.2",
    "txt_in.c_embedder.linear_1", "txt_in.c_embedder.linear_2",
    "txt_in.individual_token_refiner.blocks.#.norm1",
    "txt_in.individual_token_refiner.blocks.#.norm2",
    "txt_in.individual_token_refiner.blocks.#.self_attn_qkv",
    "txt_in.individual_token_refiner.blocks.#.self_attn_proj",
    "txt_in.individual_token_refiner.blocks.#.mlp.fc1",
    "txt_in.individual_token_refiner.blocks.#.mlp.fc2",
    "txt_in.individual_token_refiner.blocks.#.adaLN_modulation.1", "time_in.mlp.0",
    "time_in.mlp.2", "vector_in.in_layer", "vector_in.out_layer", "guidance_in.mlp.0",
    "guidance_in.mlp.2", "double_blocks.#.img_mod.linear", "double_blocks.#.txt_mod.linear",
    "double_blocks.#.img_attn_qkv", "double_blocks.#.txt_attn_qkv",
    "double_blocks.#.img_attn_q_norm", "double_blocks.#.img_attn_k_norm",
    "double_blocks.#.txt_attn_q_norm", "double_blocks.#.txt_attn_k_norm",
    "double_blocks.#.img_attn_proj", "double_blocks.#.txt_attn_proj",
    "double_blocks.#.img_mlp.fc1", "double_blocks.#.img_mlp.fc2",
    "double_blocks.#.txt_mlp.fc1", "double_blocks.#.txt_mlp.fc2", "single_blocks.#.linear1",
    "single_blocks.#.linear2", "single_blocks.#.q_norm", "single_blocks.#.k_norm",
    "single_blocks.#.modulation.linear", "final_layer.linear",
    "final_layer.adaLN_modulation.1",
  ]

  @Test(arguments: Fixture.names)
  func `parameters cover every row of the original tensors once`(name: String) throws {
    let configuration = try Fixture(name).model(in: Arena(), as: Float.self).configuration
    var rows: [String: [Range<Int>]] = [:]
    for specification in configuration.parameterSpecifications {
      let original = try #require(
        configuration.originalRows(of: specification.name), "\(specification.name)")
      #expect(original.ranges.reduce(0) { $0 + $1.count } == specification.shape[0])
      rows[original.name, default: []] += original.ranges
    }
    for (name, ranges) in rows {
      let sorted = ranges.sorted { $0.lowerBound < $1.lowerBound }
      #expect(sorted.first?.lowerBound == 0, "\(name)")
      for (left, right) in zip(sorted, sorted.dropFirst()) {
        #expect(left.upperBound == right.lowerBound, "\(name)")
      }
    }
  }

  @Test func `the published model has the original's names`() {
    let configuration = HunyuanVideoConfiguration()
    let modules = configuration.parameterSpecifications.compactMap {
      configuration.originalRows(of: $0.name)?.name
    }.map { name in
      name.split(separator: ".").dropLast().enumerated()
        .map { Int($1) != nil && ($0 == 1 || $0 == 3) && !name.contains("mlp.\($1).") ? "#" : $1 }
        .joined(separator: ".")
    }
    #expect(
      Set(modules.map { $0.replacing("adaLN_modulation.#", with: "adaLN_modulation.1") })
        == Self.originalModules)
  }

  @Test func `names of no parameter have no rows`() {
    let configuration = HunyuanVideoConfiguration()
    for name in [
      "x_embedder", "transformer_blocks.20.attn.to_q.weight", "transformer_blocks.0.attn.weight",
      "transformer_blocks.a.attn.to_q.weight", "",
    ] {
      #expect(configuration.originalRows(of: name) == nil, "\(name)")
    }
  }

  @Test func `shift and scale of the output change places`() {
    let rows = HunyuanVideoConfiguration().originalRows(of: "norm_out.linear.bias")
    #expect(rows?.name == "final_layer.adaLN_modulation.1.bias")
    #expect(rows?.ranges == [3072..<6144, 0..<3072])
  }
}
