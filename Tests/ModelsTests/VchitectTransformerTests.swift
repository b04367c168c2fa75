// Forward and every gradient against an independent reference and against differences, and the properties
// that the specification (§10) asks of the whole model.

import Autodiff
import Checkpoints
import DenseKernels
import Models
import Tensors
import TestSupport
import Testing

struct VchitectTransformerTests {
  /// Two clips of three frames of 15 tokens with 5 of text, κ = 1.1 and ρ = 1.5; two of two frames in the
  /// earlier form of the block; three images.
  static let fixtures = ["v2", "v1", "image"]

  /// Expects output and all gradients within `bound` of the largest magnitude of each tensor.
  private func expectParity<Scalar: KernelScalar>(
    _ type: Scalar.Type, fixture: String, recompute: Bool, bound: Double
  ) throws {
    let example = try VchitectExample<Scalar>(fixture: fixture)
    let files = try Fixture(folder: VchitectExample<Scalar>.folder(fixture))
    let reference = try files.reference()
    let run = example.run(
      seed: try files.tensor("output_grad", in: example.arena),
      recomputedShare: recompute ? 1 : 0)
    func expect(_ actual: [Scalar], _ name: String) throws {
      let expected = try reference.doubles(name)
      #expect(
        difference(
          actual.map { Double($0) }, expected, absolute: bound * largestMagnitude(expected)) == nil,
        "\(name)")
    }
    #expect(run.output.shape == (try reference.declaration(of: "output").shape))
    try expect(run.output.array, "output")
    let stored = Set(reference.tensors.map(\.name))
    for (name, gradient) in run.gradients {
      if stored.contains("grad.\(name)") {
        try expect(gradient, "grad.\(name)")
      } else {
        #expect(gradient.allSatisfy { $0 == 0 }, "\(name)")
      }
    }
    #expect(stored.isSubset(of: ["output"] + run.gradients.keys.map { "grad.\($0)" }))
  }

  /// Sums in Float64 leave 6e-15; a Float32 rounding at another place in an angle would leave 1e-8.
  @Test(arguments: fixtures, [false, true])
  func `output and all gradients agree with the reference in Float64`(
    name: String, recompute: Bool
  ) throws {
    try expectParity(Double.self, fixture: name, recompute: recompute, bound: 1e-12)
  }

  /// Float32 sums of some hundred terms in another order leave 3e-6.
  @Test(arguments: fixtures)
  func `output and all gradients agree with the reference in Float32`(name: String) throws {
    try expectParity(Float.self, fixture: name, recompute: false, bound: 2e-5)
  }

  @Test(arguments: fixtures)
  func `recomputing blocks gives the same bits`(name: String) throws {
    let example = try VchitectExample<Float>(fixture: name)
    let seed = example.output()
    let recorded = example.run(seed: seed)
    for share in [0.25, 0.5, 1] {
      let recomputed = example.run(seed: seed, recomputedShare: share)
      #expect(recorded.output.array == recomputed.output.array, "\(share) of the blocks")
      #expect(recorded.gradients == recomputed.gradients, "\(share) of the blocks")
    }
  }

  @Test(arguments: VchitectConfiguration.BlockVariant.allCases)
  func `every parameter's gradient agrees with central differences`(
    variant: VchitectConfiguration.BlockVariant
  ) {
    var configuration = VchitectConfiguration.tiny(variant, headWidth: 2)
    configuration.spatialGain = variant == .v1 ? 1 : 1.1
    let example = VchitectExample<Double>(
      configuration, frames: 2, textCount: 3, size: [2, 4])
    let seed = example.normals([2, 3, 2, 2, 4], 9)
    let run = example.run(seed: seed)
    func loss() -> Double { Double.dot(example.output().buffer, seed.buffer) }
    func differences(_ buffer: Buffer<Double>) -> [Double] {
      let step = 1e-5
      return (0..<buffer.count).map { index in
        let kept = buffer[index]
        defer { buffer[index] = kept }
        buffer[index] = kept + step
        let above = loss()
        buffer[index] = kept - step
        return (above - loss()) / (2 * step)
      }
    }
    // A step of 1e-5 leaves h² f‴ and ε f/h, both near 1e-9 for a loss of order 10.
    func expect(_ name: String, _ buffer: Buffer<Double>) {
      let problem = difference(
        run.gradients[name] ?? [], differences(buffer), absolute: 1e-7, relative: 1e-7)
      #expect(problem == nil, "\(name)")
    }
    expect("hidden_states", example.latents.buffer)
    for parameter in example.parameters.parameters {
      expect(parameter.name, parameter.value.buffer)
    }

    // Only what serves the last block's text is without effect.
    let silent = run.gradients.filter { $0.value.allSatisfy { $0 == 0 } }.keys
    let lastText = ["add_q_proj"] + (variant == .v2 ? ["to_add_out_temporal"] : [])
    #expect(
      Set(silent)
        == Set(
          lastText.flatMap { name in
            ["weight", "bias"].map { "transformer_blocks.1.attn.\(name).\($0)" }
          }))
  }

  @Test(arguments: VchitectConfiguration.BlockVariant.allCases)
  func `two clips in a batch are as each alone`(
    variant: VchitectConfiguration.BlockVariant
  ) {
    let example = VchitectExample<Double>(.tiny(variant))
    let together = example.output()
    for clip in 0..<2 {
      let range = clip..<(clip + 1)
      let alone = example.clips(range).output().array
      // Products of other sizes add in another order: Float64 sums of some hundred terms.
      let bound = 1e-14 * largestMagnitude(alone)
      #expect(difference(together.rows(range).array, alone, absolute: bound) == nil, "clip \(clip)")
    }
  }

  @Test(arguments: VchitectConfiguration.BlockVariant.allCases)
  func `a single frame neither sees nor trains what is temporal`(
    variant: VchitectConfiguration.BlockVariant
  ) {
    let example = VchitectExample<Double>(.tiny(variant), frames: 1)
    let seed = example.normals([2, 3, 1, 4, 6], 9)
    let before = example.run(seed: seed)
    let temporal = example.parameters.parameters.filter { $0.name.contains("_temp") }
    #expect(temporal.count == (variant == .v2 ? 20 : 0))
    for parameter in temporal {
      #expect(before.gradients[parameter.name]?.allSatisfy { $0 == 0 } == true, "\(parameter.name)")
      parameter.value.buffer.fill(with: 7)
    }
    #expect(example.output().array == before.output.array)

    // More frames do see them.
    let clip = VchitectExample<Double>(.tiny(variant), frames: 2)
    let seen = clip.output()
    for parameter in clip.parameters.parameters where parameter.name.contains("to_out_temporal") {
      parameter.value.buffer.fill(with: 7)
    }
    #expect((clip.output().array == seen.array) == (variant == .v1))
  }

  @Test func `with the temporal and cross outputs at zero, frames may be put in any order`() {
    let example = VchitectExample<Double>(.tiny(), frames: 3)
    example.clearAddedOutputs()
    let order = [2, 0, 1]
    func reordered(_ x: Tensor<Double>) -> Tensor<Double> {
      let tape = Tape<Double>(arena: example.arena, role: .base, isRecording: false)
      return tape.concatenate(
        order.map { tape.slice(Value(constant: x), along: 2, $0..<($0 + 1)) }, along: 2
      ).tensor
    }
    var moved = example
    moved.latents = reordered(example.latents)
    let output = example.output()
    #expect(moved.output().array == reordered(output).array)
    #expect(reordered(output).array != output.array)
  }

  @Test func `an adapter at a weight is the model with that update in its weights`() {
    let example = VchitectExample<Double>(.tiny())
    let targets = example.configuration.adaptableModules
    // Per block 7 + 3 input and 4 output projections and an MLP of two; the last has no more for the text,
    // the other its output projection and MLP.
    #expect(targets.count == 2 * (10 + 4 + 2) + 1 + 2)
    let set = AdapterSet<Double>(
      AdapterConfiguration(rank: 2, alpha: 3, targets: targets),
      adapting: example.configuration.parameterSpecifications, in: example.arena, role: .fake)
    for (index, parameter) in set.parameters.parameters.enumerated() {
      parameter.value.buffer.copy(
        from: example.normals(parameter.value.shape, 100 + index).array.map { 0.2 * $0 })
    }
    let weight = 0.5
    let run = example.run(
      seed: example.normals([2, 3, 3, 4, 6], 9), adapter: Adapter(set, weight: weight))
    #expect(run.gradients.count == 2 * targets.count + 1)
    let base = example.output()
    for target in targets {
      let path = "base_model.model.\(target)"
      let (down, up) = (
        set.parameters["\(path).lora_A.weight"].value, set.parameters["\(path).lora_B.weight"].value
      )
      let stored = example.parameters["\(target).weight"].value
      Double.multiply(
        Matrix(up.buffer, rows: up.shape[0], columns: 2),
        Matrix(down.buffer, rows: 2, columns: down.shape[1]), scale: weight * 3 / 2,
        accumulating: true, into: Matrix(stored.buffer, rows: up.shape[0], columns: down.shape[1]))
    }
    let merged = example.output()
    // Float64 sums of some hundred terms in another order.
    let scale = largestMagnitude(merged.array)
    #expect(difference(run.output.array, merged.array, absolute: 1e-14 * scale) == nil)
    #expect(difference(base.array, merged.array, absolute: 1e-2 * scale) != nil)
  }

  @Test func `a start predicts zero, and its temporal projections are those of the image`() {
    let configuration = VchitectConfiguration.tiny()
    let example = VchitectExample<Float>(configuration)
    let parameters = ParameterSet<Float>(
      configuration.parameterSpecifications, in: example.arena, role: .generator)
    configuration.initialize(parameters, seed: 4)
    let output = VchitectTransformer(configuration, parameters: parameters).forward(
      tape: Tape(arena: example.arena, role: .generator),
      example.inputs(Value(constant: example.latents)))
    #expect(output.tensor.array == Array(repeating: 0, count: 2 * 3 * 3 * 4 * 6))
    func values(_ name: String) -> [Float] {
      parameters["transformer_blocks.1.attn.\(name)"].value.array
    }
    for tensor in ["weight", "bias"] {
      for (copy, original) in [
        ("to_q_temp", "to_q"), ("to_k_temp", "to_k"), ("to_v_temp", "to_v"), ("to_q_cross", "to_q"),
      ] {
        #expect(values("\(copy).\(tensor)") == values("\(original).\(tensor)"), "\(copy)")
      }
      for name in ["to_out_temporal", "to_add_out_temporal", "to_out_context"] {
        #expect(values("\(name).\(tensor)").allSatisfy { $0 == 0 }, "\(name)")
      }
    }
    #expect(values("to_q.weight") != values("to_k.weight"))
  }

  @Test func `features are the mean of the image tokens before the output, clip by clip`() {
    func features(_ example: VchitectExample<Double>, _ clips: Range<Int>) -> [Double] {
      let tape = Tape<Double>(arena: example.arena, role: .base, isRecording: false)
      func rows(_ tensor: Tensor<Double>) -> Value<Double> { Value(constant: tensor.rows(clips)) }
      let features = example.model.features(
        tape: tape,
        TransformerInputs(
          hiddenStates: rows(example.latents), timestep: Array(example.times[clips]),
          encoderHiddenStates: rows(example.text),
          encoderAttentionMask: Array(repeating: 1, count: clips.count * 5),
          pooledProjections: rows(example.pooled)), adapter: nil, recomputedShare: 0,
        sequence: nil)
      #expect(features.shape == [clips.count, 8])
      return features.tensor.array
    }
    let several = VchitectExample<Double>(.tiny())
    let together = features(several, 0..<2)
    #expect(
      difference(features(several, 0..<1) + features(several, 1..<2), together, absolute: 1e-12)
        == nil)

    // Of one token; with the modulation of the output at zero that is a LayerNorm and one projection of it.
    let example = VchitectExample<Double>(.tiny(), frames: 1, size: [2, 2])
    let rows = features(example, 0..<2)
    for tensor in ["weight", "bias"] {
      example.parameters["norm_out.linear.\(tensor)"].value.buffer.fill(with: 0)
    }
    let weight = example.parameters["proj_out.weight"].value.array
    let bias = example.parameters["proj_out.bias"].value.array
    let output = example.output().array
    for clip in 0..<2 {
      let row = Array(rows[clip * 8..<(clip + 1) * 8])
      let mean = row.reduce(0, +) / 8
      let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 8
      let normed = row.map { ($0 - mean) / (variance + 1e-6).squareRoot() }
      // The first element of a patch is that of channel 0.
      let expected = (0..<8).reduce(bias[0]) { $0 + weight[$1] * normed[$1] }
      #expect(abs(output[clip * 3 * 4] - expected) < 1e-12)
    }
  }

  @Test func `inputs that do not fit are all named`() {
    func zeros(_ shape: [Int]) -> Value<Float> {
      Value(constant: Tensor(Buffer(zeroed: shape.reduce(1, *)), shape: shape))
    }
    func problems(_ latents: [Int]) -> [String] {
      VchitectInputs(
        hiddenStates: zeros(latents), timestep: [1], encoderHiddenStates: zeros([2, 2, 10]),
        pooledProjections: zeros([2, 5])
      ).problems(for: .tiny())
    }
    let others = [
      "timestep has 1 elements for 2 clips",
      "encoder_hidden_states is [2, 2, 10], it must be [2, T, 5]",
      "pooled_projections is [2, 5], it must be [2, 3]",
    ]
    #expect(
      problems([2, 3, 1, 2, 2])
        == ["hidden_states is [2, 3, 1, 2, 2], it must be [B, 2, F, H, W]"] + others)
    #expect(
      problems([2, 2, 1, 1, 2]) == ["hidden_states is [2, 2, 1, 1, 2], it holds not one patch"]
        + others)
    #expect(problems([2, 2, 1, 9, 9]) == others)
    #expect(problems([2, 2, 1, 2, 10])[0].contains("no further than 8 rows and columns"))
  }
}
