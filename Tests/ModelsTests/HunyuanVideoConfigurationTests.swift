import Autodiff
import Foundation
import Models
import Testing

struct HunyuanVideoConfigurationTests {
  @Test func `the published model has its published number of parameters`() {
    var configuration = HunyuanVideoConfiguration()
    #expect(configuration.validate() == [])
    #expect(configuration.parameterCount == 12_821_012_544)
    configuration.guidanceEmbeds = false
    #expect(configuration.parameterCount == 12_810_782_784)
  }

  @Test func `its blocks have their published sizes`() {
    let specifications = HunyuanVideoConfiguration().parameterSpecifications
    func count(_ prefix: String) -> Int {
      specifications.filter { $0.name.hasPrefix(prefix) }
        .reduce(0) { $0 + $1.shape.reduce(1, *) }
    }
    // 339.8 M, 141.6 M and 309 M in the original's description; D = 3072, E = 4096, MLP 4 D.
    let (d, e) = (3072, 4096)
    #expect(count("transformer_blocks.7.") == 36 * d * d + 30 * d + 4 * 128)
    #expect(count("single_transformer_blocks.39.") == 15 * d * d + 11 * d + 2 * 128)
    let blocks = 2 * (14 * d * d + 15 * d)
    #expect(count("context_embedder.") == blocks + 2 * d * e + 2 * d * d + 256 * d + 5 * d)
  }

  @Test func `a rank-64 adapter of all block linears has r times the widths`() {
    let model = HunyuanVideoConfiguration()
    let adapter = AdapterConfiguration(of: model)
    let count = adapter.parameterSpecifications(adapting: model.parameterSpecifications)
      .reduce(0) { $0 + $1.shape.reduce(1, *) }
    // Double: 8 of (D+D) and 4 of (D+4D); single: 3 of (D+D), D+4D, 5D+D; D = 3072.
    #expect(count == 64 * 3072 * (20 * (8 * 2 + 4 * 5) + 40 * (3 * 2 + 5 + 6)))
  }

  @Test func `all problems come at once`() {
    var configuration = HunyuanVideoConfiguration()
    configuration.inChannels = 0
    configuration.doubleBlockCount = -1
    configuration.qkNorm = "layer_norm"
    configuration.ropeAxesWidths = [15, 56, 56]
    configuration.mlpRatio = 0
    configuration.ropeTheta = 0
    configuration.imageConditionType = "token_replace"
    let problems = configuration.validate()
    for key in [
      "in_channels", "num_layers", "qk_norm", "must be even", "adds up to 127", "mlp_ratio",
      "rope_theta", "image_condition_type",
    ] {
      #expect(problems.contains { $0.contains(key) }, "\(key)")
    }
    #expect(problems.count == 8)
    configuration.ropeAxesWidths = [64, 64]
    #expect(configuration.validate().contains { $0.contains("three sizes") })
    #expect(throws: ModelError.self) { try configuration.checked() }
  }

  @Test func `sizes whose products have no number are problems, not traps`() {
    let cases: [(String, (inout HunyuanVideoConfiguration) -> Void)] = [
      ("mlp_ratio", { $0.mlpRatio = 1e300 }), ("mlp_ratio", { $0.mlpRatio = 1e-9 }),
      ("num_attention_heads", { $0.attentionHeadCount = 1 << 62 }),
      (
        "attention_head_dim",
        {
          $0.attentionHeadWidth = 1 << 61
          $0.ropeAxesWidths = [0, 0, 1 << 61]
        }
      ),
      (
        "attention_head_dim",
        {
          $0.attentionHeadWidth = 528
          $0.ropeAxesWidths = [132, 198, 198]
        }
      ),
    ]
    for (key, change) in cases {
      var configuration = HunyuanVideoConfiguration()
      change(&configuration)
      let problems = configuration.validate()
      #expect(problems.count == 1 && problems[0].hasPrefix(key), "\(problems)")
    }
  }

  @Test func `a configuration passes through JSON with diffusers' keys and defaults`() throws {
    var configuration = HunyuanVideoConfiguration()
    configuration.attentionHeadCount = 7
    configuration.ropeAxesWidths = [8, 60, 60]
    let text = try configuration.folderConfiguration()
    #expect(try JSONDecoder().decode(HunyuanVideoConfiguration.self, from: text) == configuration)
    #expect(String(decoding: text, as: UTF8.self).contains("\"num_attention_heads\" : 7"))

    let short = try JSONDecoder().decode(
      HunyuanVideoConfiguration.self, from: Data(#"{"in_channels": 33, "out_channels": null}"#.utf8)
    )
    #expect(short.inChannels == 33 && short.outChannels == 33)
    #expect(short.doubleBlockCount == 20)
    let unnormed = try JSONDecoder().decode(
      HunyuanVideoConfiguration.self, from: Data(#"{"qk_norm": null}"#.utf8))
    #expect(unnormed.validate().count == 1)
  }

  @Test func `tokens are counted by whole patches`() {
    var configuration = HunyuanVideoConfiguration()
    #expect(configuration.tokenCount(frames: 33, height: 68, width: 120) == 67_320)
    configuration.temporalPatchSize = 2
    #expect(configuration.tokenCount(frames: 5, height: 5, width: 7) == 12)
  }
}
