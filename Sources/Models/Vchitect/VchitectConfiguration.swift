// The configuration of a Vchitect-2.0 transformer: the keys of the released code's config.json, by their
// names there, and three of ours (`mdb`, `spatial_gain`, `rope_theta`).
//
// Defaults are the released 2 B model, whose sizes are known from its reported cost; those of the released
// class (width 1152, 18 blocks) are not.
// Source: Vchitect-2.0 (2501.08453), specification §1, 3 and 5; `Vchitect/Vchitect-2.0`,
// models/VchitectXL.py.

/// Sizes and switches of a `VchitectTransformer`.
package struct VchitectConfiguration: Hashable, Sendable {
  /// The released code's `_class_name`.
  package static let className = "VchitectXLTransformerModel"
  /// Epsilon of every norm.
  static let epsilon = 1e-6
  /// The width of an MLP over that of the model.
  static let mlpRatio = 4

  /// The form of the Multimodal Diffusion Block.
  package enum BlockVariant: String, CaseIterable, Codable, Sendable {
    /// Spatial and temporal branch share queries, keys, values and the output projection (§3.7).
    case v1
    /// Spatial, temporal and cross branch with projections of their own: the released form (§3.2).
    case v2
  }

  package var variant = BlockVariant.v2
  package var inChannels = 16
  package var outChannels = 16
  package var attentionHeadCount = 24
  package var attentionHeadWidth = 64
  package var blockCount = 24
  /// Rows and columns of latents in a token.
  package var patchSize = 2
  /// Width of the text tokens that come in.
  package var textEmbeddingWidth = 4096
  package var pooledProjectionWidth = 2048
  /// Width of the text stream; nil means, and any other must be, the width of the model.
  package var captionProjectionWidth: Int?
  /// Rows and columns of the position table, which a clip's are cut from the middle of.
  package var positionTableSize = 96
  /// Rows and columns of latents whose patches number as many as the table spans units of position.
  package var sampleSize = 128
  package var ropeTheta = 1e6
  /// ρ: a frame counts as 1/ρ of a position; above 1 for clips longer than those of training.
  package var ropeScalingFactor = 1.0
  /// κ: factor of the spatial branch. 1 (default) starts as the image model; the released sampler has 1.1.
  package var spatialGain = 1.0

  package init() {}

  /// D.
  package var width: Int { attentionHeadCount * attentionHeadWidth }
  /// Elements of a token of one channel.
  var patchArea: Int { patchSize * patchSize }

  /// All problems, each with its key; empty if the model can be built.
  package func validate() -> [String] {
    var problems: [String] = []
    let positive: [(String, Int)] = [
      ("in_channels", inChannels), ("out_channels", outChannels),
      ("num_attention_heads", attentionHeadCount), ("attention_head_dim", attentionHeadWidth),
      ("num_layers", blockCount), ("patch_size", patchSize),
      ("joint_attention_dim", textEmbeddingWidth),
      ("pooled_projection_dim", pooledProjectionWidth),
      ("pos_embed_max_size", positionTableSize),
    ]
    for (key, value) in positive where value < 1 {
      problems.append("\(key) is \(value), it must be at least 1")
    }
    if patchSize > 0 && sampleSize < patchSize {
      problems.append(
        "sample_size is \(sampleSize), it must be at least one patch of \(patchSize)")
    }
    // Bounds come first: the product of larger sizes may have no Int.
    if attentionHeadWidth > 512 {
      problems.append("attention_head_dim is \(attentionHeadWidth), it must be at most 512")
    } else if attentionHeadWidth % 2 != 0 {
      problems.append(
        "attention_head_dim is \(attentionHeadWidth), it must be even: rotary positions are pairs")
    }
    if positionTableSize > 4096 {
      problems.append("pos_embed_max_size is \(positionTableSize), it must be at most 4096")
    }
    if attentionHeadCount > 65_536 {
      problems.append("num_attention_heads is \(attentionHeadCount), it must be at most 65536")
    } else if attentionHeadWidth <= 512 {
      if width % 4 != 0 {
        problems.append(
          "num_attention_heads · attention_head_dim is \(width), it must be a multiple of 4: rows "
            + "and columns have a sine and a cosine each")
      }
      if let captionProjectionWidth, captionProjectionWidth != width {
        problems.append(
          "caption_projection_dim is \(captionProjectionWidth), it must be num_attention_heads · "
            + "attention_head_dim, which is \(width)")
      }
    }
    let factors = [
      ("rope_theta", ropeTheta), ("rope_scaling_factor", ropeScalingFactor),
      ("spatial_gain", spatialGain),
    ]
    for (key, value) in factors where !(value > 0 && value.isFinite) {
      problems.append("\(key) is \(value), it must be positive")
    }
    if variant == .v1 && spatialGain != 1 {
      problems.append("spatial_gain is \(spatialGain), with mdb v1 it must be 1")
    }
    return problems
  }
}

extension VchitectConfiguration: Codable {
  package enum CodingKeys: String, CodingKey, CaseIterable {
    case variant = "mdb"
    case inChannels = "in_channels"
    case outChannels = "out_channels"
    case attentionHeadCount = "num_attention_heads"
    case attentionHeadWidth = "attention_head_dim"
    case blockCount = "num_layers"
    case patchSize = "patch_size"
    case textEmbeddingWidth = "joint_attention_dim"
    case pooledProjectionWidth = "pooled_projection_dim"
    case captionProjectionWidth = "caption_projection_dim"
    case positionTableSize = "pos_embed_max_size"
    case sampleSize = "sample_size"
    case ropeTheta = "rope_theta"
    case ropeScalingFactor = "rope_scaling_factor"
    case spatialGain = "spatial_gain"
  }

  /// A missing key takes the value of the released model; a null `out_channels` is `in_channels`.
  package init(from decoder: any Decoder) throws {
    let keys = try decoder.container(keyedBy: CodingKeys.self)
    func value<T: Decodable>(_ key: CodingKeys, _ standard: T) throws -> T {
      try keys.decodeIfPresent(T.self, forKey: key) ?? standard
    }
    self.init()
    variant = try value(.variant, variant)
    inChannels = try value(.inChannels, inChannels)
    outChannels = try value(.outChannels, keys.contains(.outChannels) ? inChannels : outChannels)
    attentionHeadCount = try value(.attentionHeadCount, attentionHeadCount)
    attentionHeadWidth = try value(.attentionHeadWidth, attentionHeadWidth)
    blockCount = try value(.blockCount, blockCount)
    patchSize = try value(.patchSize, patchSize)
    textEmbeddingWidth = try value(.textEmbeddingWidth, textEmbeddingWidth)
    pooledProjectionWidth = try value(.pooledProjectionWidth, pooledProjectionWidth)
    captionProjectionWidth = try keys.decodeIfPresent(Int.self, forKey: .captionProjectionWidth)
    positionTableSize = try value(.positionTableSize, positionTableSize)
    sampleSize = try value(.sampleSize, sampleSize)
    ropeTheta = try value(.ropeTheta, ropeTheta)
    ropeScalingFactor = try value(.ropeScalingFactor, ropeScalingFactor)
    spatialGain = try value(.spatialGain, spatialGain)
  }
}
