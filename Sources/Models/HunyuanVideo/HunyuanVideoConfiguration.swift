// The configuration of a HunyuanVideo transformer: the keys of diffusers' config.json, by their names
// there, with its defaults (which are the 13 B model).
//
// Source: diffusers, `transformer_hunyuan_video.py`, class HunyuanVideoTransformer3DModel.

/// Sizes and switches of a `HunyuanVideoTransformer`.
package struct HunyuanVideoConfiguration: Hashable, Sendable {
  /// diffusers' `_class_name`.
  package static let className = "HunyuanVideoTransformer3DModel"
  /// The refiner's MLP is this many times the width, whatever `mlpRatio` says.
  static let refinerRatio = 4
  /// Epsilon of every norm.
  static let epsilon = 1e-6

  package var inChannels = 16
  package var outChannels = 16
  package var attentionHeadCount = 24
  package var attentionHeadWidth = 128
  package var doubleBlockCount = 20
  package var singleBlockCount = 40
  package var refinerBlockCount = 2
  package var mlpRatio = 4.0
  /// Rows and columns of latents in a token.
  package var patchSize = 2
  /// Latent frames in a token.
  package var temporalPatchSize = 1
  /// Only "rms_norm" is run.
  package var qkNorm = "rms_norm"
  /// Whether the guidance strength is an input.
  package var guidanceEmbeds = true
  package var textEmbeddingWidth = 4096
  package var pooledProjectionWidth = 768
  package var ropeTheta = 256.0
  /// Elements of a head that carry the frame, the row and the column.
  package var ropeAxesWidths = [16, 56, 56]
  /// Must be nil: image conditioning here is by channels, see `ConditionedTransformer`.
  package var imageConditionType: String?

  package init() {}

  /// D.
  package var width: Int { attentionHeadCount * attentionHeadWidth }

  /// All problems, each with its key; empty if the model can be built.
  package func validate() -> [String] {
    var problems: [String] = []
    let positive: [(String, Int)] = [
      ("in_channels", inChannels), ("out_channels", outChannels),
      ("num_attention_heads", attentionHeadCount), ("attention_head_dim", attentionHeadWidth),
      ("patch_size", patchSize), ("patch_size_t", temporalPatchSize),
      ("text_embed_dim", textEmbeddingWidth), ("pooled_projection_dim", pooledProjectionWidth),
    ]
    for (key, value) in positive where value < 1 {
      problems.append("\(key) is \(value), it must be at least 1")
    }
    if attentionHeadWidth > 512 {
      problems.append("attention_head_dim is \(attentionHeadWidth), it must be at most 512")
    }
    let counts: [(String, Int)] = [
      ("num_layers", doubleBlockCount), ("num_single_layers", singleBlockCount),
      ("num_refiner_layers", refinerBlockCount),
    ]
    for (key, value) in counts where value < 0 {
      problems.append("\(key) is \(value), it cannot be negative")
    }
    // Bounds come first: the product of larger sizes may have no Int.
    if attentionHeadCount > 65_536 {
      problems.append("num_attention_heads is \(attentionHeadCount), it must be at most 65536")
    }
    if !(mlpRatio > 0 && mlpRatio <= 1_024) {
      problems.append("mlp_ratio is \(mlpRatio), it must be above 0 and at most 1024")
    } else if attentionHeadCount <= 65_536 && attentionHeadWidth <= 512 && mlpWidth < 1 {
      problems.append("mlp_ratio is \(mlpRatio), it leaves the MLP no width")
    }
    if qkNorm != "rms_norm" {
      problems.append("qk_norm is \(qkNorm), only rms_norm is supported")
    }
    if !(ropeTheta > 0 && ropeTheta.isFinite) {
      problems.append("rope_theta is \(ropeTheta), it must be positive")
    }
    if ropeAxesWidths.count != 3 {
      problems.append(
        "rope_axes_dim is \(ropeAxesWidths), it needs three sizes: frame, row, column")
    } else if ropeAxesWidths.contains(where: { $0 < 0 || $0 % 2 != 0 }) {
      problems.append("rope_axes_dim is \(ropeAxesWidths), each size must be even")
    }
    let rotated = ropeAxesWidths.reduce(0, +)
    if rotated != attentionHeadWidth {
      problems.append(
        "rope_axes_dim \(ropeAxesWidths) adds up to \(rotated), attention_head_dim is "
          + "\(attentionHeadWidth); they must be equal")
    }
    if let imageConditionType {
      problems.append(
        "image_condition_type is \(imageConditionType), only null is supported (a first frame is "
          + "given by channels: in_channels = 2 · out_channels + 1)")
    }
    return problems
  }
}

extension HunyuanVideoConfiguration: Codable {
  package enum CodingKeys: String, CodingKey, CaseIterable {
    case inChannels = "in_channels"
    case outChannels = "out_channels"
    case attentionHeadCount = "num_attention_heads"
    case attentionHeadWidth = "attention_head_dim"
    case doubleBlockCount = "num_layers"
    case singleBlockCount = "num_single_layers"
    case refinerBlockCount = "num_refiner_layers"
    case mlpRatio = "mlp_ratio"
    case patchSize = "patch_size"
    case temporalPatchSize = "patch_size_t"
    case qkNorm = "qk_norm"
    case guidanceEmbeds = "guidance_embeds"
    case textEmbeddingWidth = "text_embed_dim"
    case pooledProjectionWidth = "pooled_projection_dim"
    case ropeTheta = "rope_theta"
    case ropeAxesWidths = "rope_axes_dim"
    case imageConditionType = "image_condition_type"
  }

  /// A missing key takes diffusers' default; a null `out_channels` is `in_channels`.
  package init(from decoder: any Decoder) throws {
    let keys = try decoder.container(keyedBy: CodingKeys.self)
    func value<T: Decodable>(_ key: CodingKeys, _ standard: T) throws -> T {
      try keys.decodeIfPresent(T.self, forKey: key) ?? standard
    }
    self.init()
    inChannels = try value(.inChannels, inChannels)
    outChannels = try value(.outChannels, keys.contains(.outChannels) ? inChannels : outChannels)
    attentionHeadCount = try value(.attentionHeadCount, attentionHeadCount)
    attentionHeadWidth = try value(.attentionHeadWidth, attentionHeadWidth)
    doubleBlockCount = try value(.doubleBlockCount, doubleBlockCount)
    singleBlockCount = try value(.singleBlockCount, singleBlockCount)
    refinerBlockCount = try value(.refinerBlockCount, refinerBlockCount)
    mlpRatio = try value(.mlpRatio, mlpRatio)
    patchSize = try value(.patchSize, patchSize)
    temporalPatchSize = try value(.temporalPatchSize, temporalPatchSize)
    qkNorm = try value(.qkNorm, keys.contains(.qkNorm) ? "none" : qkNorm)
    guidanceEmbeds = try value(.guidanceEmbeds, guidanceEmbeds)
    textEmbeddingWidth = try value(.textEmbeddingWidth, textEmbeddingWidth)
    pooledProjectionWidth = try value(.pooledProjectionWidth, pooledProjectionWidth)
    ropeTheta = try value(.ropeTheta, ropeTheta)
    ropeAxesWidths = try value(.ropeAxesWidths, ropeAxesWidths)
    imageConditionType = try keys.decodeIfPresent(String.self, forKey: .imageConditionType)
  }
}
