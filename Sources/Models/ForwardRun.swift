// `w2svd forward`: one forward pass, and if asked for one backward pass, of a model folder on inputs from a
// file, so that anyone can compare us with diffusers, or the released code, tensor by tensor.

import Autodiff
import Checkpoints
package import DenseKernels
package import Foundation
import Tensors

/// Runs a model on the tensors of a file and writes what comes out.
package enum ForwardRun {
  /// Input tensors, named as the arguments of diffusers' forward: `hidden_states`, `timestep`,
  /// `encoder_hidden_states`, `encoder_attention_mask` if the model has one (default: all valid),
  /// `pooled_projections`, `guidance` if the model has one, `output_grad` (default: ones). Writes `output`, and with
  /// `gradients` also `grad.<parameter>` and `grad.hidden_states`, all F32. Products read their operands in
  /// `precision`.
  /// - Throws: `ModelError` with everything that does not fit, `CheckpointError`.
  package static func run(
    modelFolder: URL, inputs: URL, outputs: URL, gradients: Bool, recompute: Bool = false,
    precision: ProductPrecision = .float32
  ) throws {
    let folder = try Architecture.openFolder(modelFolder)
    let configuration: any TransformerConfiguration = folder.configuration
    let file = InputFile(reader: try SafetensorsReader(opening: inputs))
    try file.requireKnownNames(configuration)

    let arena = Arena()
    let parameters = ParameterSet<Float>(
      configuration.parameterSpecifications, in: arena, role: .base)
    try folder.load(into: parameters)
    if gradients {
      parameters.bindGradients(
        to: arena.allocate(
          Float.self, count: parameters.layout.count, booking: Booking(.base, .gradients),
          zeroed: true))
    }

    let tape = Tape<Float>(
      arena: arena, role: .base, precision: precision, isRecording: gradients)
    let hiddenStates = tape.input(try file.tensor("hidden_states", in: arena))
    let text = try file.tensor("encoder_hidden_states", in: arena)
    let transformerInputs = TransformerInputs(
      hiddenStates: hiddenStates, timestep: try file.reader.numbers("timestep"),
      encoderHiddenStates: Value(constant: text),
      encoderAttentionMask: try file.mask("encoder_attention_mask", tokensOf: text.shape),
      pooledProjections: Value(
        constant: try file.tensor("pooled_projections", in: arena)),
      guidance: try file.has("guidance") ? file.reader.numbers("guidance") : nil)
    let problems = configuration.problems(of: transformerInputs)
    guard problems.isEmpty else {
      throw ModelError(
        .wrongInput, "\(file.reader.path): " + problems.joined(separator: "\n"))
    }
    let output = configuration.transformer(parameters).forward(
      tape: tape, transformerInputs, adapter: nil, recomputedShare: recompute ? 1 : 0,
      sequence: nil)

    var results: [(name: String, tensor: Tensor<Float>)] = [("output", output.tensor)]
    if gradients {
      tape.backward([(output, try file.seed("output_grad", like: output.tensor, in: arena))])
      results += parameters.parameters.compactMap { parameter in
        parameter.gradient.map { ("grad.\(parameter.name)", $0) }
      }
      if let gradient = tape.gradient(of: hiddenStates) {
        results.append(("grad.hidden_states", gradient))
      }
    }
    let writer = try SafetensorsWriter(
      creating: outputs,
      tensors: results.map { TensorDeclaration($0.name, .float32, shape: $0.tensor.shape) })
    for result in results { try writer.append(result.tensor.buffer, to: result.name) }
    try writer.finish()
  }
}

/// Tensors of the inputs' file, in whatever types PyTorch wrote them.
private struct InputFile {
  let reader: SafetensorsReader

  static let required = [
    "hidden_states", "timestep", "encoder_hidden_states", "pooled_projections",
  ]
  static let optional = ["guidance", "output_grad"]

  func has(_ name: String) -> Bool { reader.tensors.contains { $0.name == name } }

  /// All missing and unknown names at once.
  func requireKnownNames(_ configuration: any TransformerConfiguration) throws {
    let names = reader.tensors.map(\.name)
    let required = Self.required + (configuration.guidanceEmbeds ? ["guidance"] : [])
    let missing = required.filter { !names.contains($0) }
    let known =
      Self.required + Self.optional
      + (configuration.takesTextMask ? ["encoder_attention_mask"] : [])
    let unknown = names.filter { !known.contains($0) }
    var problems: [String] = []
    if !missing.isEmpty { problems.append("it lacks \(missing.joined(separator: ", "))") }
    if !unknown.isEmpty {
      problems.append(
        "it has \(unknown.joined(separator: ", ")), which no argument is named; take them out")
    }
    guard problems.isEmpty else {
      throw ModelError(.wrongInput, "\(reader.path): \(problems.joined(separator: "; "))")
    }
  }

  func tensor(_ name: String, in arena: Arena) throws -> Tensor<Float> {
    let tensor = Tensor<Float>(
      shape: try reader.declaration(of: name).shape, in: arena,
      booking: Booking(.common, .activations))
    try reader.read(name, into: tensor.buffer)
    return tensor
  }

  func mask(_ name: String, tokensOf shape: [Int]) throws -> [UInt8] {
    guard has(name) else {
      return Array(repeating: 1, count: shape.prefix(2).reduce(1, *))
    }
    let declared = try reader.declaration(of: name).shape
    guard declared == Array(shape.prefix(2)) else {
      throw ModelError(
        .wrongInput,
        "\(reader.path): \(name) is \(declared), it must be \(shape.prefix(2)) as the text")
    }
    return try reader.numbers(name).map { value in
      guard value == 0 || value == 1 else {
        throw ModelError(
          .wrongInput, "\(reader.path): \(name) has an element \(value); give zeros and ones")
      }
      return UInt8(value)
    }
  }

  /// The gradient of the output; ones if the file has none.
  func seed(
    _ name: String, like output: Tensor<Float>, in arena: Arena
  ) throws -> Tensor<Float> {
    guard has(name) else {
      let ones = Tensor<Float>(
        shape: output.shape, in: arena, booking: Booking(.common, .activations))
      ones.buffer.fill(with: 1)
      return ones
    }
    let seed = try tensor(name, in: arena)
    guard seed.shape == output.shape else {
      throw ModelError(
        .wrongInput, "\(reader.path): \(name) is \(seed.shape), the output is \(output.shape)")
    }
    return seed
  }
}
