import Autodiff
import Foundation
import Models
import Testing

struct VchitectConfigurationTests {
  @Test func `the released model has the parameters and the cost of the specification`() {
    let configuration = VchitectConfiguration()
    #expect(configuration.validate() == [])
    #expect(configuration.width == 1536)
    #expect(configuration.parameterCount == 2_424_947_776)
    // A forward pass of 40 frames at 432×768; FasterCache reports 14.57 P for 100 guided steps.
    let count = configuration.multiplyAddCount(frames: 40, tokensPerFrame: 27 * 48, textCount: 333)
    #expect(abs(Double(200 * count) / 14.57e15 - 1) < 0.002)
  }

  @Test func `counts are the closed forms of every term`() {
    var configuration = VchitectConfiguration()
    let (d, layers, f, s, t) = (1536, 24, 40, 1296, 333)
    let n = s + t
    let attention = 2 * f * n * n * d + 2 * n * f * f * d
    let released =
      layers * (f * s * 17 * d * d + f * n * d * d + attention + 2 * f * n * t * d)
      + f * t * d * d * (13 * (layers - 1) + 4)
    #expect(configuration.multiplyAddCount(frames: f, tokensPerFrame: s, textCount: t) == released)

    let added = layers * 7 * (d * d + d)
    configuration.variant = .v1
    #expect(configuration.parameterCount == 2_424_947_776 - added)
    let shared =
      layers * (f * s * 12 * d * d + attention) + f * t * d * d * (12 * (layers - 1) + 3)
    #expect(configuration.multiplyAddCount(frames: f, tokensPerFrame: s, textCount: t) == shared)
  }

  @Test func `parameters have the released names`() {
    let released = VchitectConfiguration().parameterSpecifications
    let shapes = Dictionary(uniqueKeysWithValues: released.map { ($0.name, $0.shape) })
    #expect(shapes["pos_embed.proj.weight"] == [1536, 16, 2, 2])
    #expect(shapes["time_text_embed.text_embedder.linear_1.weight"] == [1536, 2048])
    #expect(shapes["context_embedder.weight"] == [1536, 4096])
    #expect(shapes["norm_out.linear.weight"] == [3072, 1536])
    #expect(shapes["proj_out.weight"] == [64, 1536])
    func names(_ block: Int) -> Set<String> {
      let prefix = "transformer_blocks.\(block)."
      return Set(
        released.map(\.name).filter { $0.hasPrefix(prefix) && $0.hasSuffix(".weight") }
          .map { String($0.dropFirst(prefix.count).dropLast(".weight".count)) })
    }
    let attention = [
      "to_q", "to_k", "to_v", "to_q_cross", "to_q_temp", "to_k_temp", "to_v_temp", "add_q_proj",
      "add_k_proj", "add_v_proj", "to_out.0", "to_out_temporal", "to_add_out_temporal",
      "to_out_context",
    ].map { "attn.\($0)" }
    let last = Set(
      attention + ["norm1.linear", "norm1_context.linear", "ff.net.0.proj", "ff.net.2"])
    #expect(names(23) == last)
    #expect(
      names(0) == last.union(["attn.to_add_out", "ff_context.net.0.proj", "ff_context.net.2"]))
    #expect(shapes["transformer_blocks.22.norm1_context.linear.weight"] == [9216, 1536])
    #expect(shapes["transformer_blocks.23.norm1_context.linear.weight"] == [3072, 1536])
  }

  @Test func `all problems come at once`() {
    var configuration = VchitectConfiguration()
    configuration.inChannels = 0
    configuration.blockCount = 0
    configuration.attentionHeadWidth = 63
    configuration.attentionHeadCount = 26
    configuration.captionProjectionWidth = 1152
    configuration.sampleSize = 1
    configuration.ropeScalingFactor = 0
    configuration.variant = .v1
    configuration.spatialGain = 1.1
    let problems = configuration.validate()
    for key in [
      "in_channels", "num_layers", "must be even", "multiple of 4", "caption_projection_dim",
      "sample_size", "rope_scaling_factor", "with mdb v1 it must be 1",
    ] {
      #expect(problems.count { $0.contains(key) } == 1, "\(key)")
    }
    #expect(problems.count == 8)
    #expect(throws: ModelError.self) { try configuration.checked() }
  }

  @Test func `sizes whose products have no number are problems, not traps`() {
    let cases: [(String, (inout VchitectConfiguration) -> Void)] = [
      ("num_attention_heads", { $0.attentionHeadCount = 1 << 62 }),
      ("attention_head_dim", { $0.attentionHeadWidth = 1 << 61 }),
      ("pos_embed_max_size", { $0.positionTableSize = 1 << 62 }),
      ("spatial_gain", { $0.spatialGain = .nan }),
      ("rope_theta", { $0.ropeTheta = .infinity }),
    ]
    for (key, change) in cases {
      var configuration = VchitectConfiguration()
      change(&configuration)
      let problems = configuration.validate()
      #expect(problems.count == 1 && problems[0].hasPrefix(key), "\(problems)")
    }
  }

  @Test func `a configuration passes through JSON with the released keys`() throws {
    var configuration = VchitectConfiguration()
    configuration.attentionHeadCount = 7
    configuration.variant = .v1
    configuration.ropeScalingFactor = 1.25
    let text = try JSONEncoder().encode(configuration)
    #expect(try JSONDecoder().decode(VchitectConfiguration.self, from: text) == configuration)

    let released = #"{"in_channels": 4, "out_channels": null, "num_layers": 3, "tp_size": 1}"#
    let short = try JSONDecoder().decode(
      VchitectConfiguration.self, from: Data(released.utf8))
    #expect(short.inChannels == 4 && short.outChannels == 4 && short.blockCount == 3)
    #expect(short.attentionHeadCount == 24 && short.variant == .v2 && short.spatialGain == 1)
  }
}
