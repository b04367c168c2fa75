// Tiny models of diffusers with their inputs, outputs and gradients; dumped by
// Tests/Fixtures/generate/hunyuan_video.py.

import Autodiff
import Checkpoints
import DenseKernels
import Foundation
import Models
import Tensors

struct Fixture {
  static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: "Fixtures/hunyuanvideo", directoryHint: .isDirectory)

  /// Latents that fill their patches or not, one to three samples, text masks of every kind, guidance
  /// on and off, with and without blocks.
  static let names = ["masks", "odd-sizes", "scattered-mask", "no-blocks"]

  let folder: URL
  let inputs: SafetensorsReader

  init(_ name: String) throws {
    try self.init(folder: Self.root.appending(path: name, directoryHint: .isDirectory))
  }

  init(folder: URL) throws {
    self.folder = folder
    inputs = try SafetensorsReader(opening: folder.appending(path: "inputs.safetensors"))
  }

  /// What one run of a model gave.
  struct Run<Scalar: KernelScalar> {
    var output: Tensor<Scalar>
    var gradients: [String: [Scalar]]
  }

  func reference(_ name: String = "reference") throws -> SafetensorsReader {
    try SafetensorsReader(opening: folder.appending(path: "\(name).safetensors"))
  }

  func model<Scalar: KernelScalar>(
    in arena: Arena, as type: Scalar.Type = Scalar.self
  ) throws -> HunyuanVideoTransformer<Scalar> {
    let stored = try HunyuanVideoFolder(opening: folder)
    let set = ParameterSet<Scalar>(
      stored.configuration.parameterSpecifications, in: arena, role: .base)
    try stored.load(into: set)
    return HunyuanVideoTransformer(stored.configuration, parameters: set)
  }

  func tensor<Scalar: KernelScalar>(
    _ name: String, in arena: Arena, as type: Scalar.Type = Scalar.self
  ) throws -> Tensor<Scalar> {
    Tensor(
      try inputs.floats(name).map { Scalar($0) }, shape: try inputs.declaration(of: name).shape,
      in: arena, booking: Booking(.common, .activations))
  }

  func transformerInputs<Scalar: KernelScalar>(
    hiddenStates: Value<Scalar>, in arena: Arena
  ) throws -> TransformerInputs<Scalar> {
    let mask = Buffer<Int64>(zeroed: try inputs.declaration(of: "encoder_attention_mask").count)
    try inputs.readExactly("encoder_attention_mask", into: mask)
    let hasGuidance = inputs.tensors.contains { $0.name == "guidance" }
    return TransformerInputs(
      hiddenStates: hiddenStates,
      timestep: try inputs.floats("timestep").map { Double($0) },
      encoderHiddenStates: Value(constant: try tensor("encoder_hidden_states", in: arena)),
      encoderAttentionMask: mask.array.map { UInt8($0) },
      pooledProjections: Value(constant: try tensor("pooled_projections", in: arena)),
      guidance: hasGuidance ? try inputs.floats("guidance").map { Double($0) } : nil)
  }

  /// Output and all gradients of the model, or of the adapter alone if there is one.
  func run<Scalar: KernelScalar>(
    _ type: Scalar.Type,
    adapter: ((HunyuanVideoConfiguration, Arena) throws -> Adapter<Scalar>)? = nil,
    recomputedShare: Double = 0, precision: ProductPrecision = .float32
  ) throws -> Run<Scalar> {
    let arena = Arena()
    let model: HunyuanVideoTransformer<Scalar> = try model(in: arena)
    let adapter = try adapter?(model.configuration, arena)
    let trained = adapter?.set.parameters ?? model.parameters
    trained.bindGradients(to: Buffer(zeroed: trained.layout.count))

    let tape = Tape<Scalar>(arena: arena, role: .base, precision: precision)
    let hiddenStates = tape.input(try tensor("hidden_states", in: arena))
    let output = model.forward(
      tape: tape, try transformerInputs(hiddenStates: hiddenStates, in: arena), adapter: adapter,
      recomputedShare: recomputedShare)
    tape.backward([(output, try tensor("output_grad", in: arena))])
    var gradients = ["hidden_states": tape.gradient(of: hiddenStates)?.array ?? []]
    for parameter in trained.parameters {
      gradients[parameter.name] = parameter.gradient?.array ?? []
    }
    return Run(output: output.tensor, gradients: gradients)
  }
}

extension SafetensorsReader {
  /// A tensor stored as Float64, exactly.
  func doubles(_ name: String) throws -> [Double] {
    let buffer = Buffer<Double>(zeroed: try declaration(of: name).count)
    try readExactly(name, into: buffer)
    return buffer.array
  }
}
