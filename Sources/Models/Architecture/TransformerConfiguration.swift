// The seam over all transformers that a run can train: what their configurations have in common. Whoever
// needs more asks `blockStructure`.

package import Autodiff
import Tensors

/// A family of transformers.
package enum Architecture: String, CaseIterable, Codable, Sendable {
  /// HunyuanVideo (2412.03603).
  case hunyuanVideo = "hunyuan-video"
  /// Vchitect-2.0 (2501.08453).
  case vchitect
}

/// What blocks a transformer has.
package enum BlockStructure: Hashable, Sendable {
  /// HunyuanVideo: blocks of two streams, then of one; blocks of text alone before them.
  case doubleAndSingleStream(double: Int, single: Int, refiner: Int)
  /// Vchitect-2.0: Multimodal Diffusion Blocks, whose tokens are those of a frame.
  case multimodal(
    count: Int, variant: VchitectConfiguration.BlockVariant, spatialGain: Double)

  package var blockCount: Int {
    switch self {
    case .doubleAndSingleStream(let double, let single, _): double + single
    case .multimodal(let count, _, _): count
    }
  }
}

/// A tensor of a folder that is no parameter: a table with a closed form.
package struct ConstantTensor {
  let name: String
  let shape: [Int]
  /// What a stored element may be off.
  let tolerance: Float
  /// Settings that it depends on, for messages.
  let dependsOn: String
  let elements: () -> [Float]
}

/// Sizes and switches of a transformer from latents, times, text tokens and a pooled text to a velocity.
package protocol TransformerConfiguration: Hashable, Codable, Sendable {
  static var architecture: Architecture { get }
  /// `_class_name` in config.json.
  static var className: String { get }
  /// Whether texts of a batch may have hidden tokens. If not, all texts that a model sees have one length.
  static var takesTextMask: Bool { get }

  var inChannels: Int { get }
  var outChannels: Int { get }
  var attentionHeadCount: Int { get }
  var attentionHeadWidth: Int { get }
  /// D.
  var width: Int { get }
  /// The width of a block's MLP over D.
  var mlpRatio: Double { get }
  /// E: width of the text tokens that come in.
  var textEmbeddingWidth: Int { get }
  /// P: width of the pooled text.
  var pooledProjectionWidth: Int { get }
  /// Whether the guidance strength is an input.
  var guidanceEmbeds: Bool { get }
  /// Latent frames, rows and columns of a token.
  var patch: [Int] { get }
  /// Rows and columns of latents that positions reach to; nil: any.
  var largestLatentSide: Int? { get }
  var blockStructure: BlockStructure { get }

  /// - Precondition: `validate()` found nothing.
  var parameterSpecifications: [ParameterSpecification] { get }
  /// Attention and MLP linears of all blocks, in the order of the network: what a LoRA adapts.
  var adaptableModules: [String] { get }
  /// Linears that the release has and no pass over a clip reads.
  var idleModules: [String] { get }
  /// Tensors that its folders hold beside the parameters; a reader takes them only to compare.
  var constantTensors: [ConstantTensor] { get }

  /// All problems, each with its key in config.json; empty if the model can be built.
  func validate() -> [String]
  /// What does not fit this model, each with the name of the argument.
  func problems<Scalar>(of inputs: TransformerInputs<Scalar>) -> [String]
  /// Draws every parameter of the set, which may hold more than the model's.
  func initialize<Scalar>(_ parameters: ParameterSet<Scalar>, seed: UInt64)
  /// The network over a set of its parameters.
  func transformer<Scalar>(_ parameters: ParameterSet<Scalar>) -> any DiffusionTransformer<Scalar>
}

extension TransformerConfiguration {
  package var architecture: Architecture { Self.architecture }
  package var takesTextMask: Bool { Self.takesTextMask }
  package var idleModules: [String] { [] }
  package var constantTensors: [ConstantTensor] { [] }
  package var largestLatentSide: Int? { nil }

  /// Elements of all parameters; nothing is allocated.
  package var parameterCount: Int {
    parameterSpecifications.reduce(0) { $0 + $1.shape.reduce(1, *) }
  }

  /// The hidden width of a block's MLP.
  package var mlpWidth: Int { Int(Double(width) * mlpRatio) }

  /// Elements of a token and channel.
  package var patchVolume: Int { patch.reduce(1, *) }

  /// Tokens of a latent clip; a remainder that fills no patch is left out.
  package func tokenCount(frames: Int, height: Int, width: Int) -> Int {
    zip([frames, height, width], patch).reduce(1) { $0 * ($1.0 / $1.1) }
  }

  package func initialize<Scalar>(_ parameters: ParameterSet<Scalar>, seed: UInt64) {
    parameters.initialize(seed: seed)
  }

  /// - Throws: `invalidConfiguration` with all problems at once.
  package func checked() throws -> Self {
    let problems = validate()
    guard problems.isEmpty else {
      throw ModelError(.invalidConfiguration, problems.joined(separator: "\n"))
    }
    return self
  }
}

extension HunyuanVideoConfiguration: TransformerConfiguration {
  package static let architecture = Architecture.hunyuanVideo
  package static let takesTextMask = true

  package var patch: [Int] { [temporalPatchSize, patchSize, patchSize] }
  package var blockStructure: BlockStructure {
    .doubleAndSingleStream(
      double: doubleBlockCount, single: singleBlockCount, refiner: refinerBlockCount)
  }

  package func problems<Scalar>(of inputs: TransformerInputs<Scalar>) -> [String] {
    inputs.problems(for: self)
  }

  package func transformer<Scalar>(
    _ parameters: ParameterSet<Scalar>
  ) -> any DiffusionTransformer<Scalar> {
    HunyuanVideoTransformer(self, parameters: parameters)
  }
}

extension VchitectConfiguration: TransformerConfiguration {
  package static let architecture = Architecture.vchitect
  package static let takesTextMask = false

  package var mlpRatio: Double { Double(Self.mlpRatio) }
  package var guidanceEmbeds: Bool { false }
  package var patch: [Int] { [1, patchSize, patchSize] }
  package var largestLatentSide: Int? { positionTableSize * patchSize }
  package var blockStructure: BlockStructure {
    .multimodal(count: blockCount, variant: variant, spatialGain: spatialGain)
  }

  /// The last block's text has no queries and no results.
  package var idleModules: [String] {
    let attention = "transformer_blocks.\(blockCount - 1).attn"
    return ["\(attention).add_q_proj"]
      + (variant == .v2 ? ["\(attention).to_add_out_temporal"] : [])
  }

  /// The position table, a buffer of the released weights.
  package var constantTensors: [ConstantTensor] {
    let size = positionTableSize
    return [
      ConstantTensor(
        name: Self.positionTableName, shape: [1, size * size, width],
        // Two roundings to bfloat16 of a number up to 1.
        tolerance: 0x1p-8,
        dependsOn: "sample_size \(sampleSize) and patch_size \(patchSize)",
        elements: { PositionTable(self).cropped(rows: size, columns: size) })
    ]
  }

  static let positionTableName = "pos_embed.pos_embed"

  package func problems<Scalar>(of inputs: TransformerInputs<Scalar>) -> [String] {
    var problems = VchitectInputs(inputs).problems(for: self)
    if inputs.encoderAttentionMask.contains(0) {
      problems.append("encoder_attention_mask hides tokens, but the model has no text mask")
    }
    if inputs.guidance != nil {
      problems.append("guidance is given, but the model has no guidance embedding; leave it out")
    }
    return problems
  }

  package func transformer<Scalar>(
    _ parameters: ParameterSet<Scalar>
  ) -> any DiffusionTransformer<Scalar> {
    VchitectTransformer(self, parameters: parameters)
  }
}
