// Tiny Vchitect-2.0 models: stored ones with the outputs and gradients of an independent reference, dumped
// by Tests/Fixtures/generate/vchitect.py, and random ones.

import Autodiff
import Basics
import Checkpoints
import DenseKernels
import Foundation
import Models
import Tensors

/// What one run of a model gave.
struct VchitectRun<Scalar: KernelScalar> {
  var output: Tensor<Scalar>
  var gradients: [String: [Scalar]]
}

/// A model with its inputs.
struct VchitectExample<Scalar: KernelScalar> {
  let arena: Arena
  let configuration: VchitectConfiguration
  let parameters: ParameterSet<Scalar>
  /// [B, C, F, H, W].
  var latents: Tensor<Scalar>
  var times: [Double]
  /// [B, T, E].
  var text: Tensor<Scalar>
  /// [B, P].
  var pooled: Tensor<Scalar>

  var model: VchitectTransformer<Scalar> {
    VchitectTransformer(configuration, parameters: parameters)
  }

  func inputs(_ latents: Value<Scalar>) -> VchitectInputs<Scalar> {
    VchitectInputs(
      hiddenStates: latents, timestep: times, encoderHiddenStates: Value(constant: text),
      pooledProjections: Value(constant: pooled))
  }

  func output(adapter: Adapter<Scalar>? = nil) -> Tensor<Scalar> {
    let tape = Tape<Scalar>(arena: arena, role: .base, isRecording: false)
    return model.forward(tape: tape, inputs(Value(constant: latents)), adapter: adapter).tensor
  }

  /// Output and all gradients of Σ seed · output, those of the adapter alone if there is one.
  func run(
    seed: Tensor<Scalar>, adapter: Adapter<Scalar>? = nil, recomputedShare: Double = 0
  ) -> VchitectRun<Scalar> {
    let trained = adapter?.set.parameters ?? parameters
    trained.bindGradients(to: Buffer(zeroed: trained.layout.count))
    defer { trained.bindGradients(to: nil) }
    let tape = Tape<Scalar>(arena: arena, role: .base)
    let input = tape.input(latents)
    let output = model.forward(
      tape: tape, inputs(input), adapter: adapter, recomputedShare: recomputedShare)
    tape.backward([(output, seed)])
    var gradients = ["hidden_states": tape.gradient(of: input)?.array ?? []]
    for parameter in trained.parameters {
      gradients[parameter.name] = parameter.gradient?.array ?? []
    }
    return VchitectRun(output: output.tensor, gradients: gradients)
  }

  /// Puts W_o^t, U_o^t and W_c with their biases to zero: what is left is the image model.
  func clearAddedOutputs() {
    for parameter in parameters.parameters
    where parameter.name.contains("out_temporal") || parameter.name.contains("to_out_context") {
      parameter.value.buffer.fill(with: 0)
    }
  }

  /// The same model on some of the clips.
  func clips(_ range: Range<Int>) -> VchitectExample {
    var part = self
    part.latents = latents.rows(range)
    part.times = Array(times[range])
    part.text = text.rows(range)
    part.pooled = pooled.rows(range)
    return part
  }

  func normals(_ shape: [Int], _ sample: Int) -> Tensor<Scalar> {
    let stream = RandomStream(seed: 5, purpose: .tests, sample: sample)
    return Tensor(
      stream.normals(count: shape.reduce(1, *)).map { Scalar($0) }, shape: shape, in: arena,
      booking: Booking(.common, .activations))
  }
}

extension VchitectConfiguration {
  /// Two blocks of width 8 (or `headWidth` · 2) over 2 channels.
  static func tiny(_ variant: BlockVariant = .v2, headWidth: Int = 4) -> VchitectConfiguration {
    var configuration = VchitectConfiguration()
    configuration.variant = variant
    configuration.inChannels = 2
    configuration.outChannels = 3
    configuration.attentionHeadCount = 2
    configuration.attentionHeadWidth = headWidth
    configuration.blockCount = 2
    configuration.textEmbeddingWidth = 5
    configuration.pooledProjectionWidth = 3
    configuration.positionTableSize = 4
    configuration.sampleSize = 6
    return configuration
  }
}

extension VchitectExample {
  /// Random weights, nothing at its start; latents of `frames` × 4 × 6, that is, 6 tokens a frame.
  init(
    _ configuration: VchitectConfiguration, clips: Int = 2, frames: Int = 3, textCount: Int = 5,
    size: [Int] = [4, 6]
  ) {
    arena = Arena()
    self.configuration = configuration
    parameters = ParameterSet(
      configuration.parameterSpecifications.map {
        let fanIn = $0.shape.dropFirst().reduce(1, *)
        return ParameterSpecification(
          $0.name, $0.shape, .normal(deviation: 0.7 / Double(fanIn).squareRoot()))
      }, in: arena, role: .base)
    parameters.initialize(seed: 3)
    let empty = Tensor<Scalar>(shape: [0], in: arena, booking: Booking(.common, .activations))
    (latents, text, pooled) = (empty, empty, empty)
    times = (0..<clips).map { 937.5 / Double($0 + 1) }
    latents = normals([clips, configuration.inChannels, frames] + size, 0)
    text = normals([clips, textCount, configuration.textEmbeddingWidth], 1)
    pooled = normals([clips, configuration.pooledProjectionWidth], 2)
  }

  /// A stored model in Tests/Fixtures/vchitect.
  init(fixture name: String) throws {
    let files = try Fixture(folder: Self.folder(name))
    let stored = try VchitectFolder(opening: files.folder)
    arena = Arena()
    configuration = stored.configuration
    parameters = ParameterSet(configuration.parameterSpecifications, in: arena, role: .base)
    try stored.load(into: parameters)
    latents = try files.tensor("hidden_states", in: arena)
    times = try files.inputs.floats("timestep").map { Double($0) }
    text = try files.tensor("encoder_hidden_states", in: arena)
    pooled = try files.tensor("pooled_projections", in: arena)
  }

  static func folder(_ name: String) -> URL {
    Fixture.root.deletingLastPathComponent()
      .appending(path: "vchitect/\(name)", directoryHint: .isDirectory)
  }
}
