// Adapters as PEFT stores them: adapter_config.json beside adapter_model.safetensors.
//
// We write every target by its full name, which PEFT matches exactly; a short name such as "proj_out"
// would also catch the model's last layer. We read the targets from the tensors' names, so any way
// in which another program chose them will do.

package import Autodiff
package import Checkpoints
import DenseKernels
package import Foundation
package import Tensors

extension AdapterSet {
  /// Loads an adapter of a model with these parameters.
  /// - Throws: `ModelError` `unsupported` for a variant of LoRA that is not run here, `wrongModel`
  ///   where layers or shapes differ; `CheckpointError`.
  package convenience init(
    reading url: URL, adapting modelSpecifications: [ParameterSpecification], in arena: Arena,
    role: MemoryRole
  ) throws {
    let folder = try ModelFolder(opening: url, layout: .adapter)
    let path = url.path(percentEncoded: false)
    let stored = try folder.decodeConfiguration(StoredAdapterConfiguration.self)
    try stored.requireSupport(path: path)

    let suffix = ".lora_A.weight"
    let prefix = "base_model.model."
    let present = Set(
      folder.tensors.keys.filter { $0.hasSuffix(suffix) && $0.hasPrefix(prefix) }
        .map { String($0.dropFirst(prefix.count).dropLast(suffix.count)) })
    let linear = modelSpecifications.filter { $0.name.hasSuffix(".weight") && $0.shape.count == 2 }
      .map { String($0.name.dropLast(".weight".count)) }
    let targets = linear.filter(present.contains)
    let strangers = present.subtracting(targets)
    guard strangers.isEmpty, !targets.isEmpty else {
      throw ModelError(
        .wrongModel,
        "\(path) adapts layers that the model does not have: "
          + (strangers.isEmpty ? "none of its layers" : strangers.sorted().joined(separator: ", ")))
    }
    let configuration = AdapterConfiguration(
      rank: stored.r, alpha: stored.lora_alpha, targets: targets)
    let specifications = configuration.parameterSpecifications(adapting: modelSpecifications)
    try folder.requireTensors(
      Dictionary(uniqueKeysWithValues: specifications.map { ($0.name, $0.shape) }))
    self.init(configuration, adapting: modelSpecifications, in: arena, role: role)
    try parameters.overwriteUnits { entries in
      for parameter in parameters.parameters[entries] {
        try parameter.value.fill { try folder.read(parameter.name, into: $0) }
      }
    }
  }
}

extension AdapterSet where Scalar == Float {
  /// Writes a folder that `PeftModel.from_pretrained` takes.
  package func write(to url: URL, as type: StoredType = .float32) throws {
    let writer = try AdapterFolderWriter(creating: url, self, as: type)
    try parameters.readUnits { entries in
      for parameter in parameters.parameters[entries] { try writer.append(parameter) }
    }
    try writer.finish()
  }
}

/// A PEFT folder being written, factor by factor; it appears only when it is whole.
package struct AdapterFolderWriter: ModelWriter {
  private let writer: ModelFolderWriter

  package init(
    creating url: URL, _ adapter: AdapterSet<Float>, as type: StoredType = .float32
  ) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    writer = try ModelFolderWriter(
      creating: url, layout: .adapter,
      configuration: encoder.encode(StoredAdapterConfiguration(adapter.configuration)),
      tensors: adapter.parameters.specifications.map {
        TensorDeclaration($0.name, type, shape: $0.shape)
      })
  }

  package func append(_ parameter: Parameter<Float>) throws {
    try writer.append(parameter.value.buffer, to: parameter.name)
  }

  package func finish() throws { try writer.finish() }
}

/// The keys of adapter_config.json that mean something here, by PEFT's names.
private struct StoredAdapterConfiguration: Codable {
  var peft_type = "LORA"
  var r: Int
  var lora_alpha: Double
  var target_modules: [String]?
  var bias: String? = "none"
  var use_dora: Bool? = false
  var use_rslora: Bool? = false
  var fan_in_fan_out: Bool? = false
  var lora_bias: Bool? = false
  var rank_pattern: [String: Int]? = [:]
  var alpha_pattern: [String: Double]? = [:]
  var lora_dropout: Double? = 0
  var inference_mode: Bool? = true

  enum CodingKeys: String, CodingKey {
    case peft_type, r, lora_alpha, target_modules, bias, use_dora, use_rslora, fan_in_fan_out
    case lora_bias, rank_pattern, alpha_pattern, lora_dropout, inference_mode
  }

  init(_ configuration: AdapterConfiguration) {
    r = configuration.rank
    lora_alpha = configuration.alpha
    target_modules = configuration.targets
  }

  /// PEFT's target_modules may also be one regular expression; the tensors tell the targets.
  init(from decoder: any Decoder) throws {
    let keys = try decoder.container(keyedBy: CodingKeys.self)
    peft_type = try keys.decode(String.self, forKey: .peft_type)
    r = try keys.decode(Int.self, forKey: .r)
    lora_alpha = try keys.decode(Double.self, forKey: .lora_alpha)
    bias = try keys.decodeIfPresent(String.self, forKey: .bias)
    use_dora = try keys.decodeIfPresent(Bool.self, forKey: .use_dora)
    use_rslora = try keys.decodeIfPresent(Bool.self, forKey: .use_rslora)
    fan_in_fan_out = try keys.decodeIfPresent(Bool.self, forKey: .fan_in_fan_out)
    lora_bias = try keys.decodeIfPresent(Bool.self, forKey: .lora_bias)
    rank_pattern = try keys.decodeIfPresent([String: Int].self, forKey: .rank_pattern)
    alpha_pattern = try keys.decodeIfPresent([String: Double].self, forKey: .alpha_pattern)
  }

  func requireSupport(path: String) throws {
    var unsupported: [String] = []
    if peft_type != "LORA" { unsupported.append("peft_type \(peft_type)") }
    if let bias, bias != "none" { unsupported.append("bias \(bias)") }
    if use_dora == true { unsupported.append("use_dora") }
    if use_rslora == true { unsupported.append("use_rslora") }
    if fan_in_fan_out == true { unsupported.append("fan_in_fan_out") }
    if lora_bias == true { unsupported.append("lora_bias") }
    if rank_pattern?.isEmpty == false { unsupported.append("rank_pattern") }
    if alpha_pattern?.isEmpty == false { unsupported.append("alpha_pattern") }
    if r < 1 { unsupported.append("rank \(r)") }
    guard unsupported.isEmpty else {
      throw ModelError(
        .unsupported,
        "\(path) uses \(unsupported.joined(separator: ", ")); a plain LoRA of one rank is needed")
    }
  }
}
