// A network whose tokens are shared computes what one that has them all computes: outputs everywhere, and
// parameter gradients as a sum over the parts (checks 6 and 8 of the specification of Vchitect-2.0, §10).
// What the tests of Ulysses, of the ring and of both have in common.

import Autodiff
import Basics
import DenseKernels
import Exchange
import Foundation
import MeshLayout
import Models
import ProcessMesh
import Tensors
import TestSupport
import Testing

@testable import Training

/// A network with inputs and what a loss pulls at, on one rank or on several that share its tokens.
protocol SharedTokensCase: Sendable {
  /// The output, and the gradient of ⟨output, seed⟩ by the flat vector of the parameters.
  func run(sequence: (any SequenceParallel<Double>)?) -> (output: [Double], gradient: [Double])
}

/// A network in Float64 with gates open, its inputs, and what a loss pulls at.
struct SharedTokensExample: SharedTokensCase {
  let configuration: HunyuanVideoConfiguration
  let sampleCount: Int
  let textCount: Int
  let masked: Bool
  let recompute: Bool
  let latentShape: [Int]

  /// - Parameter latentShape: default: 3 × 3 × 5 patches, which no number of parts divides.
  init(
    sampleCount: Int, textCount: Int, masked: Bool, recompute: Bool,
    latentShape: [Int] = [3, 3, 6, 10]
  ) {
    var configuration = HunyuanVideoConfiguration()
    (configuration.inChannels, configuration.outChannels) = (3, 3)
    (configuration.attentionHeadCount, configuration.attentionHeadWidth) = (6, 8)
    (configuration.doubleBlockCount, configuration.singleBlockCount) = (1, 2)
    configuration.refinerBlockCount = 1
    (configuration.textEmbeddingWidth, configuration.pooledProjectionWidth) = (5, 4)
    configuration.ropeAxesWidths = [2, 2, 4]
    configuration.guidanceEmbeds = false
    self.configuration = configuration
    self.sampleCount = sampleCount
    self.textCount = textCount
    self.masked = masked
    self.recompute = recompute
    self.latentShape = latentShape
  }

  /// The output, and the gradient of ⟨output, seed⟩ by the flat vector of the parameters.
  func run(sequence: (any SequenceParallel<Double>)?) -> (output: [Double], gradient: [Double]) {
    let arena = Arena()
    let booking = Booking(.base, .activations)
    let parameters = ParameterSet<Double>(
      configuration.parameterSpecifications, in: arena, role: .base)
    parameters.values.copy(from: draws(1, parameters.values.count).map { 0.15 * $0 })
    let gradients = arena.allocate(
      Double.self, count: parameters.values.count, booking: Booking(.base, .gradients),
      zeroed: true)
    parameters.bindGradients(to: gradients)
    func input(_ number: Int, _ shape: [Int]) -> Value<Double> {
      Value(
        constant: Tensor(
          draws(number, shape.reduce(1, *)), shape: shape, in: arena, booking: booking))
    }
    let latents = [sampleCount] + latentShape
    var mask = [UInt8](repeating: 1, count: sampleCount * textCount)
    if masked { mask[textCount - 1] = 0 }
    let tape = Tape<Double>(arena: arena, role: .base)
    let output = HunyuanVideoTransformer(configuration, parameters: parameters).forward(
      tape: tape,
      TransformerInputs(
        hiddenStates: input(2, latents), timestep: (0..<sampleCount).map { 300 + Double($0) },
        encoderHiddenStates: input(3, [sampleCount, textCount, 5]), encoderAttentionMask: mask,
        pooledProjections: input(4, [sampleCount, 4])),
      recomputedShare: recompute ? 1 : 0, sequence: sequence)
    tape.backward([(output, input(5, latents).tensor)])
    parameters.completeGradients()
    return (output.tensor.array, gradients.array)
  }

  private func draws(_ number: Int, _ count: Int) -> [Double] {
    RandomStream(seed: 11, purpose: .tests, step: number).normals(count: count).map(Double.init)
  }
}

extension SharedTokensExample {
  /// Few and many text tokens, hidden ones, one sample and two.
  static func all(recompute: Bool) -> [SharedTokensExample] {
    let cases = [(1, 7, true), (2, 4, false), (1, 2, true), (2, 3, true)]
    return cases.map { sampleCount, textCount, masked in
      SharedTokensExample(
        sampleCount: sampleCount, textCount: textCount, masked: masked, recompute: recompute)
    }
  }
}

extension SharedTokensCase {
  /// Expects of `ring` × `sp` parts what one has, up to the order of sums.
  func expectAgreement(
    ring: Int, sp: Int, plan: SequencePlan = .spatial, location: SourceLocation = #_sourceLocation
  ) throws {
    let alone = run(sequence: nil)
    #expect(alone.gradient.contains { $0 != 0 }, sourceLocation: location)
    let parts = try InProcessMesh.run(size: ring * sp) { transport in
      var failure: (any Error)?
      let sequence = try Self.sequence(ring: ring, sp: sp, plan, transport) { body in
        do { try body() } catch { failure = error }
      }
      let result = run(sequence: sequence)
      if let failure { throw failure }
      return result
    }
    for part in parts {
      #expect(Self.distance(part.output, alone.output) < 1e-12, sourceLocation: location)
    }
    let sum = alone.gradient.indices.map { index in
      parts.reduce(0) { $0 + $1.gradient[index] }
    }
    #expect(
      Self.distance(sum, alone.gradient) < 1e-12,
      "ring \(ring), sp \(sp), \(plan) of \(self)", sourceLocation: location)
  }

  /// The sequence of a rank: `sp` is the faster axis.
  private static func sequence(
    ring: Int, sp: Int, _ plan: SequencePlan, _ transport: any Transport,
    attempt: @escaping (() throws -> Void) -> Void
  ) throws -> any SequenceParallel<Double> {
    let around = RingSequence<Double>(
      TokenExchange(
        transport: try transport.split(color: transport.rank % sp, key: transport.rank)),
      attempt: attempt)
    if sp == 1 { return around }
    return UlyssesSequence<Double>(
      TokenExchange(
        transport: try transport.split(color: transport.rank / sp, key: transport.rank)),
      inside: ring > 1 ? around : nil, plan: plan, attempt: attempt)
  }

  private static func distance(_ found: [Double], _ expected: [Double]) -> Double {
    let scale = expected.map(abs).max() ?? 1
    // A number that is none is as far as can be.
    return zip(found, expected).reduce(0) {
      let difference = abs($1.0 - $1.1)
      return difference.isNaN ? .infinity : max($0, difference)
    } / scale
  }
}

/// A small run of all phases that train, and what it leaves.
struct SharedTokensRun {
  let losses: [Double]
  let weights: [Float]

  /// - Parameter ring, sp: ranks that share a microbatch's tokens.
  init(
    ranks: Int, ring: Int = 1, sp: Int = 1,
    _ change: (inout RunConfiguration) -> Void = { _ in }
  ) throws {
    let configuration = TinyRun.configuration {
      $0.model.heads = 4
      $0.mesh.ring = .fixed(ring)
      $0.mesh.sp = .fixed(sp)
      $0.compute.precision = .fp32
      $0.distill.guidance = 2
      change(&$0)
    }
    (losses, weights) = try withTemporaryFolder { folder in
      let prepared = try TinyRun.prepared(in: folder)
      let path = folder.path + "/run"
      return try InProcessMesh.run(size: ranks) { transport in
        let context = try RunContext(
          configuration: configuration, folder: RunFolder(path), transport: transport,
          shape: try Coordinator.plan(configuration, rankCount: ranks).shape,
          reporter: Reporter(), isStopRequested: { false })
        let networks = Networks(
          configuration.transformer, nullTokenCount: configuration.model.textTokens,
          arena: context.arena)
        networks.base.parameters.initialize(seed: 1)
        let batches = TrainingBatches(prepared, context: context, texts: nil, firstCounter: 0)
        let losses = try context.agreeOnStep(losses: context.microbatches.map(Double.init)).losses
        try TeachPhase(context: context, networks: networks, batches: batches)
          .run(from: 0) { _, _ in }
        try DistillPhase(context: context, networks: networks, batches: batches)
          .run(from: 0) { _, _ in }
        let generator = try #require(networks.generator)
        return (losses, networks.base.parameters.values.array + generator.parameters.values.array)
      }[0]
    }
  }

  /// Expects losses and weights of one rank, up to the order of sums in fp32.
  /// - Parameter bound: what weights may differ by, over the largest of them.
  func expectAgreement(
    with alone: SharedTokensRun, bound: Float = 1e-4, location: SourceLocation = #_sourceLocation
  ) {
    // One rank of each group speaks for its microbatches: each is counted once, in order.
    #expect(alone.losses == [0, 1, 2, 3] && losses == alone.losses, sourceLocation: location)
    let scale = alone.weights.reduce(0) { max($0, abs($1)) }
    let worst = zip(alone.weights, weights).reduce(0) { max($0, abs($1.0 - $1.1)) }
    #expect(
      worst <= bound * scale && weights.allSatisfy(\.isFinite),
      "weights differ by \(worst) of \(scale)", sourceLocation: location)
    // Sums of other parts have other bits: the tokens were shared.
    #expect(alone.weights != weights, sourceLocation: location)
  }
}
