import Autodiff
import Basics
import DenseKernels
import Models
import Tensors
import TestSupport
import Testing

/// A model of 2 latent channels with a first frame, all weights random, so that nothing is the identity.
private struct Example {
  let arena = Arena()
  let model: ConditionedTransformer<Double>

  init(
    _ architecture: Architecture = .hunyuanVideo, channels: Int = 2, withFirstFrame: Bool = true
  ) {
    let inChannels = withFirstFrame ? 2 * channels + 1 : channels
    let configuration: any TransformerConfiguration =
      switch architecture {
      case .hunyuanVideo: Self.hunyuanVideo(inChannels: inChannels, channels: channels)
      case .vchitect: Self.vchitect(inChannels: inChannels, channels: channels)
      }
    let specifications = ConditionedTransformer<Double>.specifications(
      of: configuration, nullTokenCount: 2
    ).map { ParameterSpecification($0.name, $0.shape, .normal(deviation: 0.3)) }
    let set = ParameterSet<Double>(specifications, in: arena, role: .generator)
    set.initialize(seed: 8)
    model = ConditionedTransformer(configuration, parameters: set)
  }

  private static func vchitect(inChannels: Int, channels: Int) -> VchitectConfiguration {
    var configuration = VchitectConfiguration()
    configuration.inChannels = inChannels
    configuration.outChannels = channels
    configuration.attentionHeadCount = 2
    configuration.attentionHeadWidth = 6
    configuration.blockCount = 2
    configuration.textEmbeddingWidth = 5
    configuration.pooledProjectionWidth = 3
    return configuration
  }

  private static func hunyuanVideo(inChannels: Int, channels: Int) -> HunyuanVideoConfiguration {
    var configuration = HunyuanVideoConfiguration()
    configuration.inChannels = inChannels
    configuration.outChannels = channels
    configuration.attentionHeadCount = 2
    configuration.attentionHeadWidth = 6
    configuration.ropeAxesWidths = [2, 2, 2]
    configuration.doubleBlockCount = 1
    configuration.singleBlockCount = 1
    configuration.refinerBlockCount = 1
    configuration.textEmbeddingWidth = 5
    configuration.pooledProjectionWidth = 3
    configuration.guidanceEmbeds = false
    return configuration
  }

  func tensor(_ shape: [Int], _ sample: Int) -> Tensor<Double> {
    let stream = RandomStream(seed: 6, purpose: .tests, sample: sample)
    return Tensor(
      stream.normals(count: shape.reduce(1, *)).map { Double($0) }, shape: shape, in: arena,
      booking: Booking(.common, .activations))
  }

  func text(_ tokenCount: Int, mask: [UInt8]? = nil) -> TextCondition<Double> {
    TextCondition(
      embeddings: tensor([tokenCount, 5], 100 + tokenCount), mask: mask, pooled: tensor([3], 99))
  }

  func velocity(
    _ noisy: Tensor<Double>, _ times: [Double], _ conditions: [Condition<Double>]
  ) -> Tensor<Double> {
    let tape = Tape<Double>(arena: arena, role: .generator, isRecording: false)
    return model.velocity(
      tape: tape, noisy: Value(constant: noisy), times: times, conditions: conditions
    ).tensor
  }
}

struct ConditionedTransformerTests {
  @Test func `the channels are noisy, reference and mask, zero after the first frame`() {
    let example = Example()
    let tape = Tape<Double>(arena: example.arena, role: .generator, isRecording: false)
    let noisy = example.tensor([2, 2, 3, 2, 4], 0)
    let reference = example.tensor([2, 2, 4], 1)
    let inputs = example.model.inputs(
      tape: tape, noisy: Value(constant: noisy), times: [0.25, 1],
      conditions: [Condition(), Condition(reference: reference)], guidance: 1)
    #expect(inputs.hiddenStates.shape == [2, 5, 3, 2, 4])
    #expect(inputs.timestep == [250, 1_000])
    #expect(inputs.guidance == nil)
    let zeros = Array(repeating: 0.0, count: 16)
    let dropped = inputs.hiddenStates.tensor.rows(0..<1).array
    #expect(Array(dropped[..<48]) == noisy.rows(0..<1).array)
    #expect(dropped[48...].allSatisfy { $0 == 0 })
    let given = inputs.hiddenStates.tensor.rows(1..<2).array
    #expect(Array(given[..<48]) == noisy.rows(1..<2).array)
    #expect(Array(given[48..<72]) == Array(reference.array[..<8]) + zeros)
    #expect(Array(given[72..<96]) == Array(reference.array[8...]) + zeros)
    #expect(Array(given[96...]) == Array(repeating: 1, count: 8) + zeros)
  }

  /// That each clip's velocity is the one it has alone.
  private func requireIndependent(
    _ example: Example, texts: [TextCondition<Double>]
  ) {
    let noisy = example.tensor([3, 2, 3, 2, 4], 0)
    let conditions = [
      Condition(text: texts[0]), Condition(),
      Condition(reference: example.tensor([2, 2, 4], 1), text: texts[1]),
    ]
    let times = [0.1, 0.5, 1]
    let together = example.velocity(noisy, times, conditions)
    for sample in 0..<3 {
      let alone = example.velocity(
        noisy.rows(sample..<(sample + 1)), [times[sample]], [conditions[sample]])
      // Padding changes where masked zeros are summed, more rows how products are blocked: rounding alone
      // remains.
      #expect(
        difference(
          alone.array, together.rows(sample..<(sample + 1)).array, absolute: 1e-12) == nil)
    }
  }

  @Test func `a sample's velocity does not depend on the others of its batch`() {
    let example = Example()
    requireIndependent(example, texts: [example.text(4, mask: [1, 1, 1, 0]), example.text(1)])
  }

  @Test(arguments: Architecture.allCases)
  func `each part of a condition matters`(architecture: Architecture) {
    let example = Example(architecture)
    let noisy = example.tensor([1, 2, 3, 2, 4], 0)
    let full = Condition(reference: example.tensor([2, 2, 4], 1), text: example.text(2))
    let outputs = [
      full, Condition(text: full.text), Condition(reference: full.reference), Condition(),
    ].map { example.velocity(noisy, [0.5], [$0]).array }
    #expect(Set(outputs).count == 4)
  }

  @Test(arguments: Architecture.allCases)
  func `the null text learns when it is used`(architecture: Architecture) {
    let example = Example(architecture)
    let noisy = example.tensor([2, 2, 1, 2, 4], 0)
    for (conditions, learns) in [
      ([Condition(text: example.text(2)), Condition()], true),
      ([Condition(text: example.text(2)), Condition(text: example.text(2))], false),
    ] {
      let set = example.model.parameters
      set.bindGradients(to: Buffer(zeroed: set.layout.count))
      let tape = Tape<Double>(arena: example.arena, role: .generator)
      let output = example.model.velocity(
        tape: tape, noisy: Value(constant: noisy), times: [0.5, 0.25], conditions: conditions)
      tape.backward([(output, example.tensor(output.shape, 3))])
      for name in ["conditioning.null_text", "conditioning.null_pooled"] {
        #expect(set[name].gradient?.array.contains { $0 != 0 } == learns, "\(name)")
      }
    }
  }

  @Test func `the null text has the gradient of finite differences`() {
    let example = Example()
    let set = example.model.parameters
    let gradients = Buffer<Double>(zeroed: set.layout.count)
    set.bindGradients(to: gradients)
    let noisy = example.tensor([2, 2, 1, 2, 4], 0)
    let weights = example.tensor([2, 2, 1, 2, 4], 3)
    let tape = Tape<Double>(arena: example.arena, role: .generator)
    let output = example.model.velocity(
      tape: tape, noisy: Value(constant: noisy), times: [0.5, 0.25],
      conditions: [Condition(), Condition()])
    tape.backward([(output, weights)])
    let buffer = set["conditioning.null_text"].value.buffer
    for index in 0..<buffer.count {
      let kept = buffer[index]
      func loss(_ step: Double) -> Double {
        buffer[index] = kept + step
        let output = example.velocity(noisy, [0.5, 0.25], [Condition(), Condition()])
        return Double.dot(output.buffer, weights.buffer)
      }
      let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
      buffer[index] = kept
      let gradient = set["conditioning.null_text"].gradient?.array[index] ?? 0
      // Step 1e-5: truncation and rounding are both near 1e-9.
      #expect(abs(slope - gradient) < 1e-7 * max(1, abs(slope)))
    }
  }

  @Test func `without a text mask a clip's velocity does not depend on the others either`() {
    let example = Example(.vchitect)
    requireIndependent(example, texts: [example.text(2), example.text(2)])
  }

  @Test func `a model without reference channels takes noisy latents alone`() {
    let example = Example(withFirstFrame: false)
    let noisy = example.tensor([1, 2, 1, 2, 4], 0)
    #expect(example.velocity(noisy, [0.5], [Condition()]).shape == noisy.shape)
  }
}
