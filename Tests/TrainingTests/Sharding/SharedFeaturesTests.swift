// The discriminator where ranks compute a pass together, in Float64: each has the logits, and the gradient at the
// sample; the gradients of the head's parameters add up to those of one rank.

import Autodiff
import DenseKernels
import Exchange
import Foundation
import Models
import ProcessMesh
import Tensors
import TestSupport
import Testing

@testable import Training

/// What one rank finds.
private struct FoundFeatures: Sendable {
  let logits: [Double]
  /// Of Σ seed · logit.
  let latentGradient: [Double]
  let headGradient: [Double]
}

private protocol FeaturesCase: SharedTokensCase {
  var width: Int { get }
  var sampleCount: Int { get }
  var latentShape: [Int] { get }
  func draws(_ number: Int, _ count: Int) -> [Double]
  /// A frozen network, and its features of latents.
  func features(
    _ latents: Value<Double>, on tape: Tape<Double>, in arena: Arena,
    sequence: (any SequenceParallel<Double>)?, tensorRank: Int
  ) -> Value<Double>
}

extension FeaturesCase {
  fileprivate func drawn(_ number: Int, _ shape: [Int], in arena: Arena) -> Tensor<Double> {
    Tensor(
      draws(number, shape.reduce(1, *)), shape: shape, in: arena,
      booking: Booking(.base, .activations))
  }

  /// A network without gradients, or what a rank that cuts weights computes with.
  fileprivate func frozen(
    _ specifications: [ParameterSpecification], rank: Int, degree: Int?, in arena: Arena
  ) -> CutNetwork {
    let network = CutNetwork(
      specifications, values: draws(1, FlatLayout(specifications).count).map { 0.15 * $0 },
      rank: rank, degree: degree, arena: arena)
    network.parameters.bindGradients(to: nil)
    return network
  }

  func find(sequence: (any SequenceParallel<Double>)?, tensorRank: Int = 0) -> FoundFeatures {
    let arena = Arena()
    let specifications = DiscriminatorHead<Double>.specifications(
      featureWidth: width, hiddenWidth: 6)
    let head = DiscriminatorHead(
      parameters: ParameterSet<Double>(specifications, in: arena, role: .fake))
    let count = head.parameters.layout.count
    head.parameters.values.copy(from: draws(7, count).map { 0.3 * $0 })
    let gradients = Buffer<Double>(zeroed: count)
    head.parameters.bindGradients(to: gradients)
    let tape = Tape<Double>(arena: arena, role: .base)
    func tensor(_ number: Int, _ shape: [Int]) -> Tensor<Double> {
      drawn(number, shape, in: arena)
    }
    let latents = tape.input(tensor(2, [sampleCount] + latentShape))
    let shared = sequence?.stage?.sharingGradient(of: latents, on: tape) ?? latents
    // Twice, as in the critic's turn.
    let logits = head.inUse(tape: tape, sequence: sequence) {
      [shared, shared.detached].map {
        head.forward(
          tape: tape,
          features: features($0, on: tape, in: arena, sequence: sequence, tensorRank: tensorRank),
          sequence: sequence)
      }
    }
    tape.backward([(logits[0], tensor(8, [sampleCount])), (logits[1], tensor(9, [sampleCount]))])
    head.parameters.completeGradients()
    return FoundFeatures(
      logits: logits.flatMap(\.tensor.array),
      latentGradient: tape.gradient(of: latents)?.array ?? [], headGradient: gradients.array)
  }

  /// Expects of ranks what one has.
  /// - Parameters:
  ///   - isExact: whether sums are made in the same order.
  ///   - makeSequence: of a rank.
  func expectFeatures(
    ranks: Int, tp: Int = 1, isExact: Bool = false, location: SourceLocation = #_sourceLocation,
    _ makeSequence:
      @escaping @Sendable (
        _ transport: any Transport, _ attempt: @escaping (() throws -> Void) -> Void
      ) throws -> any SequenceParallel<Double>
  ) throws {
    let alone = find(sequence: nil)
    for numbers in [alone.logits, alone.latentGradient, alone.headGradient] {
      #expect(numbers.contains { $0 != 0 }, sourceLocation: location)
    }
    let parts = try InProcessMesh.run(size: ranks) { transport in
      var failure: (any Error)?
      let sequence = try makeSequence(transport) { body in
        do { try body() } catch { failure = error }
      }
      let found = find(sequence: sequence, tensorRank: transport.rank % tp)
      if let failure { throw failure }
      return found
    }
    let bound = isExact ? 0 : 1e-12
    for part in parts {
      #expect(Self.distance(part.logits, alone.logits) <= bound, sourceLocation: location)
      #expect(part.latentGradient.count == alone.latentGradient.count, sourceLocation: location)
      #expect(
        Self.distance(part.latentGradient, alone.latentGradient) <= bound,
        sourceLocation: location)
    }
    let sum = alone.headGradient.indices.map { index in
      parts.reduce(0) { $0 + $1.headGradient[index] }
    }
    #expect(Self.distance(sum, alone.headGradient) <= bound, sourceLocation: location)
    // Counted by one, exactly zero elsewhere.
    let counts = parts.count(where: { $0.headGradient.contains { $0 != 0 } })
    #expect(counts == 1, sourceLocation: location)
  }

  func expectFeatures(
    ring: Int = 1, sp: Int = 1, tp: Int? = nil, stages: Int = 1, plan: SequencePlan = .spatial,
    isCanonical: Bool = false, location: SourceLocation = #_sourceLocation
  ) throws {
    let degree = ring * sp * (tp ?? 1)
    try expectFeatures(
      ranks: stages * degree, tp: tp ?? 1, isExact: degree == 1, location: location
    ) { transport, attempt in
      func part(_ color: Int) throws -> any Transport {
        try transport.split(color: color, key: transport.rank)
      }
      let tokens =
        degree == 1
        ? nil
        : try Self.sequence(
          ring: ring, sp: sp, tp: tp, plan, isCanonical: isCanonical,
          try part(transport.rank / degree), attempt: attempt)
      if stages == 1, let tokens { return tokens }
      return StagedSequence<Double>(
        StageExchange(transport: try part(transport.rank % degree)), around: tokens,
        attempt: attempt)
    }
  }
}

extension SharedTokensExample: FeaturesCase {
  fileprivate var width: Int { configuration.width }

  fileprivate func features(
    _ latents: Value<Double>, on tape: Tape<Double>, in arena: Arena,
    sequence: (any SequenceParallel<Double>)?, tensorRank: Int
  ) -> Value<Double> {
    let network = frozen(
      configuration.parameterSpecifications, rank: tensorRank, degree: sequence?.tensor?.degree,
      in: arena)
    func constant(_ number: Int, _ shape: [Int]) -> Value<Double> {
      Value(constant: drawn(number, shape, in: arena))
    }
    var mask = [UInt8](repeating: 1, count: sampleCount * textCount)
    if masked { mask[textCount - 1] = 0 }
    return tape.inBlock("", of: [network.parameters], isDifferentiated: latents.isTracked) {
      HunyuanVideoTransformer(configuration, parameters: network.parameters).features(
        tape: tape,
        TransformerInputs(
          hiddenStates: latents, timestep: (0..<sampleCount).map { 300 + Double($0) },
          encoderHiddenStates: constant(3, [sampleCount, textCount, 5]),
          encoderAttentionMask: mask, pooledProjections: constant(4, [sampleCount, 4])),
        recomputedShare: recompute ? 1 : 0, sequence: sequence)
    }
  }
}

extension VchitectTokens: FeaturesCase {
  fileprivate var width: Int { configuration.width }
  fileprivate var sampleCount: Int { clipCount }
  fileprivate var latentShape: [Int] { Array(latents.dropFirst()) }

  fileprivate func features(
    _ latents: Value<Double>, on tape: Tape<Double>, in arena: Arena,
    sequence: (any SequenceParallel<Double>)?, tensorRank: Int
  ) -> Value<Double> {
    let network = frozen(
      configuration.parameterSpecifications, rank: tensorRank, degree: sequence?.tensor?.degree,
      in: arena)
    func constant(_ number: Int, _ shape: [Int]) -> Value<Double> {
      Value(constant: drawn(number, shape, in: arena))
    }
    return tape.inBlock("", of: [network.parameters], isDifferentiated: latents.isTracked) {
      VchitectTransformer(configuration, parameters: network.parameters).features(
        tape: tape,
        VchitectInputs(
          hiddenStates: latents, timestep: (0..<clipCount).map { 300 + Double($0) },
          encoderHiddenStates: constant(3, [clipCount, textCount, 5]),
          pooledProjections: constant(4, [clipCount, 4])),
        recomputedShare: recompute ? 1 : 0, sequence: sequence)
    }
  }
}

@Suite struct SharedFeaturesTests {
  /// More and fewer tokens than parts; 27 video tokens no power of two divides.
  private static func examples(recompute: Bool) -> [SharedTokensExample] {
    [
      SharedTokensExample(
        sampleCount: 2, textCount: 4, masked: true, recompute: recompute, heads: 4),
      SharedTokensExample(
        sampleCount: 1, textCount: 1, masked: false, recompute: recompute, heads: 4,
        latentShape: [3, 1, 2, 6]),
    ]
  }

  @Test(arguments: [false, true])
  func `ranks that share tokens or cut weights agree with one`(recompute: Bool) throws {
    for example in Self.examples(recompute: recompute) {
      for sp in [2, 4] { try example.expectFeatures(sp: sp) }
      for ring in [2, 3, 4] { try example.expectFeatures(ring: ring) }
      for tp in [2, 4] { try example.expectFeatures(tp: tp) }
      try example.expectFeatures(ring: 2, sp: 2)
      try example.expectFeatures(ring: 2, sp: 2, tp: 2)
    }
    for plan in SequencePlan.allCases {
      for sp in [2, 3] {
        try VchitectTokens(clipCount: 2, frameCount: 2, textCount: 1, recompute: recompute)
          .expectFeatures(sp: sp, plan: plan)
      }
      try VchitectTokens(.v1, frameCount: 2, textCount: 2, size: [2, 2], recompute: recompute)
        .expectFeatures(sp: 4, plan: plan)
    }
    let multimodal = VchitectTokens(
      heads: 4, clipCount: 2, frameCount: 2, textCount: 2, recompute: recompute)
    for ring in [2, 3] { try multimodal.expectFeatures(ring: ring) }
    for tp in [2, 4] { try multimodal.expectFeatures(tp: tp) }
    try multimodal.expectFeatures(ring: 2, sp: 2)
    try multimodal.expectFeatures(ring: 2, sp: 2, tp: 2)
  }

  /// The features' last block in the first, in the middle and in the last stage.
  @Test(arguments: [(1, 3), (2, 1), (3, 1), (3, 0)])
  func `stages agree with one rank bit for bit`(_ double: Int, _ single: Int) throws {
    for recompute in [false, true] {
      let example = SharedTokensExample(
        sampleCount: 2, textCount: 4, masked: true, recompute: recompute, heads: 4,
        blocks: (double, single))
      for stages in [2, 3] { try example.expectFeatures(stages: stages) }
      try example.expectFeatures(sp: 2, stages: 2)
      try example.expectFeatures(ring: 3, stages: 2)
      try example.expectFeatures(sp: 2, tp: 2, stages: 3)
    }
    try VchitectTokens(clipCount: 2, frameCount: 2).expectFeatures(stages: 2)
    try VchitectTokens(clipCount: 2, frameCount: 2).expectFeatures(sp: 3, stages: 2)
  }

  @Test(arguments: [2, 4, 8])
  func `so do canonical sums`(degree: Int) throws {
    for recompute in [false, true] {
      try SharedTokensExample(
        sampleCount: 2, textCount: 4, masked: true, recompute: recompute, heads: 8
      ).expectFeatures(sp: degree, isCanonical: true)
      try SharedTokensExample(
        sampleCount: 2, textCount: 4, masked: true, recompute: recompute, heads: 8
      ).expectFeatures(tp: degree, isCanonical: true)
      let multimodal = VchitectTokens(
        heads: 8, clipCount: 2, frameCount: 2, textCount: 3, recompute: recompute)
      try multimodal.expectFeatures(sp: degree, plan: .all, isCanonical: true)
      try multimodal.expectFeatures(tp: degree, isCanonical: true)
    }
  }
}
