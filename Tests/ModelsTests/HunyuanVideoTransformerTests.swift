// Forward and every gradient against diffusers, and against finite differences.

import Autodiff
import Basics
import Checkpoints
import DenseKernels
import Models
import Tensors
import TestSupport
import Testing

struct HunyuanVideoTransformerTests {
  /// The refiner's softmax does not see a shift of all keys, so this gradient is zero in exact arithmetic.
  static func isZeroInTheory(_ name: String) -> Bool {
    name.contains("refiner_blocks") && name.hasSuffix("attn.to_k.bias")
  }

  @Test(arguments: Fixture.names, [false, true])
  func `output and all gradients agree with diffusers in Float32`(
    name: String, recompute: Bool
  ) throws {
    let fixture = try Fixture(name)
    let reference = try fixture.reference()
    let run = try fixture.run(Float.self, recomputedShare: recompute ? 1 : 0)
    let expected = try reference.floats("output")
    #expect(run.output.shape == (try reference.declaration(of: "output").shape))
    // 1e-4 of the largest magnitude: Float32 sums of some hundred terms in another order.
    #expect(
      difference(run.output.array, expected, absolute: 1e-4 * largestMagnitude(expected)) == nil)

    let stored = Set(reference.tensors.map(\.name))
    let gradients = run.gradients.filter { stored.contains("grad.\($0.key)") }
    let largest = try gradients.keys.reduce(0.0) {
      max($0, largestMagnitude(try reference.floats("grad.\($1)")))
    }
    #expect(stored.count == gradients.count + 1)
    for (parameter, gradient) in gradients {
      let expected = try reference.floats("grad.\(parameter)")
      let bound =
        Self.isZeroInTheory(parameter) ? 1e-6 * largest : 1e-4 * largestMagnitude(expected)
      #expect(difference(gradient, expected, absolute: bound) == nil, "\(parameter)")
    }
    for (parameter, gradient) in run.gradients where !stored.contains("grad.\(parameter)") {
      #expect(gradient.allSatisfy { $0 == 0 }, "\(parameter)")
    }
  }

  /// Each operand is off by up to 2⁻⁹ of itself, independently; what a chain of some ten products makes of
  /// that stays within 2 % of the output's norm and of each gradient's, and does not vanish.
  @Test(arguments: Fixture.names)
  func `output and all gradients agree with diffusers on bfloat16 operands`(name: String) throws {
    let fixture = try Fixture(name)
    let reference = try fixture.reference()
    let run = try fixture.run(Float.self, precision: .bfloat16)
    func norm(_ x: [Float]) -> Double {
      x.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
    }
    func distance(_ x: [Float], _ y: [Float]) -> Double { norm(zip(x, y).map { $0 - $1 }) }
    let expected = try reference.floats("output")
    let outputError = distance(run.output.array, expected) / norm(expected)
    #expect(outputError < 0.02 && outputError > 1e-5, "output: \(outputError)")

    let stored = Set(reference.tensors.map(\.name))
    let gradients = run.gradients.filter { stored.contains("grad.\($0.key)") }
    let largest = try gradients.keys.map { norm(try reference.floats("grad.\($0)")) }.max() ?? 0
    for (parameter, gradient) in gradients where !Self.isZeroInTheory(parameter) {
      let expected = try reference.floats("grad.\(parameter)")
      let error = distance(gradient, expected)
      #expect(
        error < 0.02 * max(norm(expected), 1e-3 * largest),
        "\(parameter): \(error) of \(norm(expected))")
    }
  }

  @Test func `output and all gradients agree with the Float64 truth in Float64`() throws {
    let fixture = try Fixture("masks")
    let exact = try fixture.reference("exact")
    let run = try fixture.run(Double.self)
    let expected = try exact.doubles("output")
    // Sums in Float64 leave 1e-13; one unit in one Float32 frequency of the sinusoids would leave 1e-6
    // at a guidance of 6000, so 1e-9 says that none differs.
    #expect(
      difference(run.output.array, expected, absolute: 1e-9 * largestMagnitude(expected)) == nil)
    let largest = try run.gradients.keys.reduce(0.0) {
      max($0, largestMagnitude(try exact.doubles("grad.\($1)")))
    }
    for (parameter, gradient) in run.gradients {
      let expected = try exact.doubles("grad.\(parameter)")
      let bound =
        Self.isZeroInTheory(parameter) ? 1e-12 * largest : 1e-9 * largestMagnitude(expected)
      #expect(difference(gradient, expected, absolute: bound) == nil, "\(parameter)")
    }
  }

  @Test(arguments: Fixture.names)
  func `recomputing blocks gives the same bits`(name: String) throws {
    let fixture = try Fixture(name)
    let recorded = try fixture.run(Float.self)
    for share in [0.3, 0.5, 1] {
      let recomputed = try fixture.run(Float.self, recomputedShare: share)
      #expect(recorded.output.array == recomputed.output.array, "\(share) of the blocks")
      #expect(recorded.gradients == recomputed.gradients, "\(share) of the blocks")
    }
  }

  @Test func `a directional derivative of the whole model agrees with differences in Float64`()
    throws
  {
    let fixture = try Fixture("scattered-mask")
    let arena = Arena()
    let model = try fixture.model(in: arena, as: Double.self)
    let gradients = Buffer<Double>(zeroed: model.parameters.layout.count)
    model.parameters.bindGradients(to: gradients)
    let tape = Tape<Double>(arena: arena, role: .base)
    let latents: Tensor<Double> = try fixture.tensor("hidden_states", in: arena)
    let input = tape.input(latents)
    let weights: Tensor<Double> = try fixture.tensor("output_grad", in: arena)
    let output = model.forward(
      tape: tape, try fixture.transformerInputs(hiddenStates: input, in: arena))
    tape.backward([(output, weights)])
    let latentGradient = try #require(tape.gradient(of: input))

    func loss() throws -> Double {
      let tape = Tape<Double>(arena: arena, role: .base, isRecording: false)
      let inputs = try fixture.transformerInputs(
        hiddenStates: Value(constant: latents), in: arena)
      return Double.dot(model.forward(tape: tape, inputs).tensor.buffer, weights.buffer)
    }
    let values = model.parameters.values
    let (kept, keptLatents) = (values.array, latents.array)
    for sample in 0..<4 {
      let stream = RandomStream(seed: 11, purpose: .tests, sample: sample)
      let direction = Buffer(stream.normals(count: values.count).map { Double($0) })
      let latentDirection = Buffer((0..<latents.count).map { stream.normal(at: values.count + $0) })
      let predicted =
        Double.dot(gradients, direction) + Double.dot(latentGradient.buffer, latentDirection)
      func moved(by step: Double) throws -> Double {
        values.copy(from: kept)
        latents.buffer.copy(from: keptLatents)
        Double.add(step, direction, to: values)
        Double.add(step, latentDirection, to: latents.buffer)
        return try loss()
      }
      // The error of a central difference falls by the square of the step: a factor of 4, unless
      // rounding (1e-10 of the slope here) takes over.
      let errors = try [2e-5, 1e-5].map { step in
        abs((try moved(by: step) - moved(by: -step)) / (2 * step) - predicted)
      }
      #expect(
        errors[1] < 1e-6 * max(1, abs(predicted)), "direction \(sample): \(predicted), \(errors)")
      #expect(errors[1] < 0.3 * errors[0] + 1e-8 * abs(predicted), "direction \(sample): \(errors)")
    }
  }

  @Test func `the features are the mean of the video tokens before the single blocks`() throws {
    let fixture = try Fixture("masks")
    let arena = Arena()
    let model = try fixture.model(in: arena, as: Float.self)
    let tape = Tape<Float>(arena: arena, role: .base)
    let input = tape.input(try fixture.tensor("hidden_states", in: arena))
    let inputs = try fixture.transformerInputs(hiddenStates: input, in: arena)
    let features = model.features(tape: tape, inputs)
    #expect(features.shape == [2, 24])
    tape.backward([(features, features.tensor)])
    #expect(tape.gradient(of: input)?.array.contains { $0 != 0 } == true)

    // Without single blocks the output is a projection of the same tokens, with the modulation of the output at zero
    // one of the normalized token: of a clip of one token it is that of the features.
    var configuration = model.configuration
    configuration.singleBlockCount = 0
    let short = HunyuanVideoTransformer(configuration, parameters: model.parameters)
    #expect(short.features(tape: tape, inputs).tensor.array == features.tensor.array)
    for tensor in ["weight", "bias"] {
      model.parameters["norm_out.linear.\(tensor)"].value.buffer.fill(with: 0)
    }
    let (patch, channels) = (configuration.patchSize, configuration.inChannels)
    let small = TransformerInputs(
      hiddenStates: Value(
        constant: Tensor<Float>(
          (0..<2 * channels * patch * patch * configuration.temporalPatchSize).map {
            Float($0 % 7) - 3
          }, shape: [2, channels, configuration.temporalPatchSize, patch, patch], in: arena,
          booking: Booking(.base, .activations))), timestep: inputs.timestep,
      encoderHiddenStates: inputs.encoderHiddenStates,
      encoderAttentionMask: inputs.encoderAttentionMask,
      pooledProjections: inputs.pooledProjections, guidance: inputs.guidance)
    let token = short.features(tape: tape, small)
    let normalized = tape.layerNorm(
      token.reshaped([2, 1, 24]), epsilon: 1e-6)
    let projected = tape.linear(
      parts: [normalized], weight: model.parameters["proj_out.weight"],
      bias: model.parameters["proj_out.bias"], update: nil
    ).tensor.array
    let output = short.forward(tape: tape, small).tensor.array
    #expect(
      difference(output.sorted(), projected.sorted(), absolute: 1e-5, relative: 1e-5) == nil)
  }

  @Test func `inputs that do not fit are all named`() throws {
    let fixture = try Fixture("masks")
    let arena = Arena()
    let configuration = try fixture.model(in: arena, as: Float.self).configuration
    func zeros(_ shape: [Int]) -> Value<Float> {
      Value(constant: Tensor(Buffer(zeroed: shape.reduce(1, *)), shape: shape))
    }
    let inputs = TransformerInputs(
      hiddenStates: zeros([2, 3, 1, 2, 2]), timestep: [1], encoderHiddenStates: zeros([2, 2, 10]),
      encoderAttentionMask: [1, 0, 0, 0], pooledProjections: zeros([2, 5]))
    #expect(
      inputs.problems(for: configuration) == [
        "hidden_states is [2, 3, 1, 2, 2], it must be [B, 4, F, H, W]",
        "timestep has 1 elements for 2 samples",
        "encoder_attention_mask leaves sample 1 without a text token",
        "pooled_projections is [2, 5], it must be [2, 6]",
        "guidance has 0 elements for 2 samples",
      ])
  }

  @Test func `a random start predicts zero`() {
    var configuration = HunyuanVideoConfiguration()
    configuration.attentionHeadCount = 2
    configuration.attentionHeadWidth = 6
    configuration.ropeAxesWidths = [2, 2, 2]
    configuration.doubleBlockCount = 1
    configuration.singleBlockCount = 1
    configuration.refinerBlockCount = 1
    configuration.textEmbeddingWidth = 4
    configuration.pooledProjectionWidth = 4
    configuration.guidanceEmbeds = false
    let arena = Arena()
    let set = ParameterSet<Float>(
      configuration.parameterSpecifications, in: arena, role: .generator)
    set.initialize(seed: 1)
    let model = HunyuanVideoTransformer(configuration, parameters: set)
    func ones(_ shape: [Int]) -> Value<Float> {
      Value(constant: Tensor(Buffer(Array(repeating: 1, count: shape.reduce(1, *))), shape: shape))
    }
    let tape = Tape<Float>(arena: arena, role: .generator)
    let output = model.forward(
      tape: tape,
      TransformerInputs(
        hiddenStates: ones([1, 16, 1, 2, 4]), timestep: [500],
        encoderHiddenStates: ones([1, 1, 4]), encoderAttentionMask: [1],
        pooledProjections: ones([1, 4])))
    #expect(output.tensor.array == Array(repeating: 0, count: 128))
  }
}
