// Vchitect-2.0 with the tokens of every frame cut among ranks, by both plans of its specification (§6.3, 6.4;
// checks 6 to 8 of §10).

import Autodiff
import Basics
import DenseKernels
import Exchange
import Models
import ProcessMesh
import Tensors
import TestSupport
import Testing

@testable import Training

/// A transformer in Float64 whose every weight is random.
struct VchitectTokens: SharedTokensCase {
  let configuration: VchitectConfiguration
  let clipCount: Int
  let frameCount: Int
  let textCount: Int
  /// Rows and columns of latents.
  let size: [Int]
  let recompute: Bool
  let adapted: Bool

  /// - Parameter size: default: 3 × 5 patches, which no number of parts but 3 and 5 divides.
  init(
    _ variant: VchitectConfiguration.BlockVariant = .v2, heads: Int = 12, clipCount: Int = 1,
    frameCount: Int = 3, textCount: Int = 7, size: [Int] = [6, 10], recompute: Bool = false,
    adapted: Bool = false
  ) {
    var configuration = VchitectConfiguration()
    configuration.variant = variant
    configuration.spatialGain = variant == .v2 ? 1.1 : 1
    (configuration.inChannels, configuration.outChannels) = (2, 2)
    (configuration.attentionHeadCount, configuration.attentionHeadWidth) = (heads, 2)
    configuration.blockCount = 2
    (configuration.textEmbeddingWidth, configuration.pooledProjectionWidth) = (5, 4)
    (configuration.positionTableSize, configuration.sampleSize) = (8, 12)
    self.configuration = configuration
    self.clipCount = clipCount
    self.frameCount = frameCount
    self.textCount = textCount
    self.size = size
    self.recompute = recompute
    self.adapted = adapted
  }

  var tokensPerFrame: Int { size[0] / 2 * (size[1] / 2) }
  var latents: [Int] { [clipCount, 2, frameCount] + size }

  func run(
    sequence: (any SequenceParallel<Double>)?, tensorRank: Int
  ) -> (output: [Double], gradient: [Double]) {
    let arena = Arena()
    func network(_ specifications: [ParameterSpecification], _ number: Int) -> CutNetwork {
      let count = FlatLayout(specifications).count
      return CutNetwork(
        specifications, values: draws(number, count).map { 0.15 * $0 }, rank: tensorRank,
        degree: sequence?.tensor?.degree, arena: arena)
    }
    let base = network(configuration.parameterSpecifications, 1)
    let adaptation = AdapterConfiguration(rank: 3, alpha: 2, of: configuration)
    let factors = network(
      adapted
        ? adaptation.parameterSpecifications(adapting: configuration.parameterSpecifications) : [],
      6)
    let tape = Tape<Double>(arena: arena, role: .base)
    let output = tape.inBlock(
      "", of: [base, factors].map(\.parameters), isDifferentiated: true
    ) {
      forward(
        base.parameters, on: tape, in: arena, sequence: sequence,
        adapter: adapted
          ? Adapter(AdapterSet(adaptation, parameters: factors.parameters), weight: 0.7) : nil)
    }
    tape.backward([(output, input(5, latents, in: arena))])
    return (output.tensor.array, base.gradient() + factors.gradient())
  }

  func forward(
    _ parameters: ParameterSet<Double>, on tape: Tape<Double>, in arena: Arena,
    sequence: (any SequenceParallel<Double>)?, adapter: Adapter<Double>? = nil
  ) -> Value<Double> {
    func constant(_ number: Int, _ shape: [Int]) -> Value<Double> {
      Value(constant: input(number, shape, in: arena))
    }
    return VchitectTransformer(configuration, parameters: parameters).forward(
      tape: tape,
      VchitectInputs(
        hiddenStates: constant(2, latents), timestep: (0..<clipCount).map { 300 + Double($0) },
        encoderHiddenStates: constant(3, [clipCount, textCount, 5]),
        pooledProjections: constant(4, [clipCount, 4])),
      adapter: adapter, recomputedShare: recompute ? 1 : 0, sequence: sequence)
  }

  func parameters(in arena: Arena) -> ParameterSet<Double> {
    let parameters = ParameterSet<Double>(
      configuration.parameterSpecifications, in: arena, role: .base)
    parameters.values.copy(from: draws(1, parameters.values.count).map { 0.15 * $0 })
    return parameters
  }

  private func input(_ number: Int, _ shape: [Int], in arena: Arena) -> Tensor<Double> {
    Tensor(
      draws(number, shape.reduce(1, *)), shape: shape, in: arena,
      booking: Booking(.base, .activations))
  }

  func draws(_ number: Int, _ count: Int) -> [Double] {
    RandomStream(seed: 11, purpose: .tests, step: number).normals(count: count).map(Double.init)
  }

  /// Two clips, one text token for many parts, fewer image tokens than parts, one frame; both forms.
  static func all(
    heads: Int = 12, recompute: Bool, adapted: Bool = false
  ) -> [VchitectTokens] {
    func example(
      _ variant: VchitectConfiguration.BlockVariant, clips: Int = 1, frames: Int, text: Int,
      size: [Int] = [6, 10]
    ) -> VchitectTokens {
      VchitectTokens(
        variant, heads: heads, clipCount: clips, frameCount: frames, textCount: text, size: size,
        recompute: recompute, adapted: adapted)
    }
    return [
      example(.v2, frames: 3, text: 7), example(.v2, clips: 2, frames: 2, text: 1),
      example(.v2, frames: 2, text: 4, size: [2, 4]), example(.v2, frames: 1, text: 3),
      example(.v1, clips: 2, frames: 2, text: 7),
      example(.v1, frames: 2, text: 2, size: [2, 2]),
    ]
  }
}

struct VchitectTokensTests {
  @Test(arguments: [2, 3, 4, 6], SequencePlan.allCases)
  func `outputs and gradients are those of one rank`(degree: Int, plan: SequencePlan) throws {
    for example in VchitectTokens.all(recompute: false) {
      try example.expectAgreement(ring: 1, sp: degree, plan: plan)
    }
  }

  @Test(arguments: SequencePlan.allCases)
  func `so they are where blocks are recomputed`(plan: SequencePlan) throws {
    for example in VchitectTokens.all(recompute: true) {
      try example.expectAgreement(ring: 1, sp: 3, plan: plan)
    }
  }

  /// The text of the released model, and its heads.
  @Test(arguments: SequencePlan.allCases)
  func `eight parts of a long text agree too`(plan: SequencePlan) throws {
    try VchitectTokens(heads: 24, frameCount: 2, textCount: 333)
      .expectAgreement(ring: 1, sp: 8, plan: plan)
  }

  /// Specification of Vchitect-2.0, §6.4: 4 B F N D (p − 1) / p² elements a block and rank, and as many of
  /// the text's keys and values as a rank of p has to tell others; the velocity is gathered at the end.
  @Test(arguments: [2, 4])
  func `a forward pass sends as many bytes as the specification says`(degree: Int) throws {
    let (clips, frames, text, width, p) = (2, 3, 8, 24, degree)
    let example = VchitectTokens(
      clipCount: clips, frameCount: frames, textCount: text, size: [4, 8])
    let image = example.tokensPerFrame
    let sent = try InProcessMesh.run(size: degree) { transport in
      let exchange = TokenExchange(transport: transport)
      let arena = Arena()
      var failure: (any Error)?
      let sequence = UlyssesSequence<Double>(exchange) { body in
        do { try body() } catch { failure = error }
      }
      _ = example.forward(
        example.parameters(in: arena),
        on: Tape(arena: arena, role: .base, isRecording: false), in: arena, sequence: sequence)
      if let failure { throw failure }
      return exchange.statistics[.activations].wireByteCount
    }
    let block = 4 * clips * frames * (image + text) * width * (p - 1) / (p * p)
    // Neither the queries nor the results of the last block's text travel.
    let unsent = 2 * clips * frames * text * width * (p - 1) / (p * p)
    // The specification counts what a rank gets: 2 B T D (p − 1) / p; it sends its T / p tokens to p − 1.
    let shared = 2 * clips * text * width * (p - 1) / p
    let gathered = clips * frames * image * 8 * (p - 1) / p
    for count in sent { #expect(count == 8 * (2 * block - unsent + 2 * shared + gathered)) }
  }

  /// Whole training steps in fp32: the losses and weights of one rank up to rounding.
  @Test(arguments: [(2, 2), (4, 2), (4, 4)], SequencePlan.allCases)
  func `a run with shared tokens follows the run of one rank`(
    layout: (ranks: Int, degree: Int), plan: SequencePlan
  ) throws {
    func vchitect(_ configuration: inout RunConfiguration) {
      configuration.model.architecture = .vchitect
      configuration.model.doubleBlocks = 2
      configuration.mesh.sequencePlan = plan
    }
    try TrainedRun(ranks: layout.ranks, sp: layout.degree, vchitect)
      .expectAgreement(with: TrainedRun(ranks: 1, vchitect))
  }
}
