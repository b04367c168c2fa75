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
  /// - Parameter tensorRank: the rank's part of the weights, where they are cut.
  func run(
    sequence: (any SequenceParallel<Double>)?, tensorRank: Int
  ) -> (output: [Double], gradient: [Double])
}

/// A network in Float64 with gates open, its inputs, and what a loss pulls at.
struct SharedTokensExample: SharedTokensCase {
  let configuration: HunyuanVideoConfiguration
  let sampleCount: Int
  let textCount: Int
  let masked: Bool
  let recompute: Bool
  let adapted: Bool
  let latentShape: [Int]

  /// - Parameter latentShape: default: 3 × 3 × 5 patches, which no number of parts divides.
  init(
    sampleCount: Int, textCount: Int, masked: Bool, recompute: Bool, adapted: Bool = false,
    heads: Int = 6, latentShape: [Int] = [3, 3, 6, 10], blocks: (double: Int, single: Int) = (1, 2)
  ) {
    var configuration = HunyuanVideoConfiguration()
    (configuration.inChannels, configuration.outChannels) = (3, 3)
    (configuration.attentionHeadCount, configuration.attentionHeadWidth) = (heads, 8)
    (configuration.doubleBlockCount, configuration.singleBlockCount) = blocks
    configuration.refinerBlockCount = 1
    (configuration.textEmbeddingWidth, configuration.pooledProjectionWidth) = (5, 4)
    configuration.ropeAxesWidths = [2, 2, 4]
    configuration.guidanceEmbeds = false
    self.configuration = configuration
    self.sampleCount = sampleCount
    self.textCount = textCount
    self.masked = masked
    self.recompute = recompute
    self.adapted = adapted
    self.latentShape = latentShape
  }

  /// The output, and the gradient of ⟨output, seed⟩ by the flat vector of the parameters, followed by that of
  /// the adapter's.
  func run(
    sequence: (any SequenceParallel<Double>)?, tensorRank: Int
  ) -> (output: [Double], gradient: [Double]) {
    let arena = Arena()
    let booking = Booking(.base, .activations)
    let degree = sequence?.tensor?.degree
    func network(_ specifications: [ParameterSpecification], _ number: Int) -> CutNetwork {
      let count = FlatLayout(specifications).count
      return CutNetwork(
        specifications, values: draws(number, count).map { 0.15 * $0 }, rank: tensorRank,
        degree: degree, arena: arena)
    }
    let base = network(configuration.parameterSpecifications, 1)
    let adaptation = AdapterConfiguration(rank: 3, alpha: 2, of: configuration)
    let factors = network(
      adapted
        ? adaptation.parameterSpecifications(adapting: configuration.parameterSpecifications) : [],
      6)
    func input(_ number: Int, _ shape: [Int]) -> Value<Double> {
      Value(
        constant: Tensor(
          draws(number, shape.reduce(1, *)), shape: shape, in: arena, booking: booking))
    }
    let latents = [sampleCount] + latentShape
    var mask = [UInt8](repeating: 1, count: sampleCount * textCount)
    if masked { mask[textCount - 1] = 0 }
    let tape = Tape<Double>(arena: arena, role: .base)
    let sets = [base, factors].map(\.parameters)
    let output = tape.inBlock("", of: sets, isDifferentiated: true) {
      HunyuanVideoTransformer(configuration, parameters: base.parameters).forward(
        tape: tape,
        TransformerInputs(
          hiddenStates: input(2, latents), timestep: (0..<sampleCount).map { 300 + Double($0) },
          encoderHiddenStates: input(3, [sampleCount, textCount, 5]), encoderAttentionMask: mask,
          pooledProjections: input(4, [sampleCount, 4])),
        adapter: adapted
          ? Adapter(AdapterSet(adaptation, parameters: factors.parameters), weight: 0.7) : nil,
        recomputedShare: recompute ? 1 : 0, sequence: sequence)
    }
    tape.backward([(output, input(5, latents).tensor)])
    return (output.tensor.array, base.gradient() + factors.gradient())
  }

  func draws(_ number: Int, _ count: Int) -> [Double] {
    RandomStream(seed: 11, purpose: .tests, step: number).normals(count: count).map(Double.init)
  }
}

/// Parameters that are whole in memory, or cut among ranks and loaded as they run, and their gradients.
struct CutNetwork {
  let parameters: ParameterSet<Double>
  private let gradients: Buffer<Double>

  /// - Parameter degree: nil: the weights are whole.
  init(
    _ specifications: [ParameterSpecification], values: [Double], rank: Int, degree: Int?,
    arena: Arena
  ) {
    let gradients = Buffer<Double>(zeroed: values.count)
    self.gradients = gradients
    guard let degree else {
      parameters = ParameterSet(specifications, in: arena, role: .base)
      parameters.values.copy(from: values)
      parameters.bindGradients(to: gradients)
      return
    }
    let source = CutValues(FlatLayout(specifications), values, rank: rank, degree: degree)
    parameters = ParameterSet(specifications, in: arena, role: .base, source: source)
    parameters.bindGradients { unit, gradient in
      if let gradient { source.add(gradient, of: unit, to: gradients) }
    }
  }

  /// Of the whole flat vector; what this rank does not compute with has none.
  func gradient() -> [Double] {
    parameters.completeGradients()
    parameters.finishUnitGradients()
    return gradients.array
  }
}

/// All elements of a network, of which a rank loads its parts.
private final class CutValues: UnitSource {
  private let layout: FlatLayout
  private let values: Buffer<Double>
  private let rank: Int
  private let slicedUnits: [SlicedUnit]

  init(_ layout: FlatLayout, _ values: [Double], rank: Int, degree: Int) {
    self.layout = layout
    self.values = Buffer(values)
    self.rank = rank
    slicedUnits = layout.slicedUnits(
      UnitSharding(units: layout.units.map(\.range), shardCount: degree), degree: degree)
  }

  func load(_ unit: Int, into elements: Buffer<Double>) {
    elements.copy(from: values[layout.units[unit].range])
  }

  func keep(_ unit: Int, _ elements: Buffer<Double>) {
    values[layout.units[unit].range].copy(from: elements)
  }

  func part(of unit: Int) -> UnitPart { layout.part(of: unit, slicedUnits[unit], rank: rank) }

  func loadPart(of unit: Int, into elements: Buffer<Double>) {
    // What lies between tensors is nobody's.
    elements.fill(with: .nan)
    for (place, local) in places(of: unit) { elements[local] = values[place] }
  }

  func add(_ part: Buffer<Double>, of unit: Int, to flat: Buffer<Double>) {
    for (place, local) in places(of: unit) { flat[place] += part[local] }
  }

  private func places(of unit: Int) -> [(flat: Int, local: Int)] {
    let range = layout.units[unit].range
    return slicedUnits[unit].slice(of: rank).rows(in: 0..<range.count).flatMap { rows in
      (0..<rows.rowCount).flatMap { row in
        (0..<rows.width).map {
          (
            range.lowerBound + rows.start + row * rows.stride + $0,
            rows.localStart + row * rows.localStride + $0
          )
        }
      }
    }
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
  /// Expects of `ring` × `sp` × `tp` parts what one has, up to the order of sums.
  func expectAgreement(
    ring: Int, sp: Int, tp: Int? = nil, plan: SequencePlan = .spatial, isCanonical: Bool = false,
    location: SourceLocation = #_sourceLocation
  ) throws {
    let alone = run(sequence: nil, tensorRank: 0)
    #expect(alone.gradient.contains { $0 != 0 }, sourceLocation: location)
    let parts = try InProcessMesh.run(size: ring * sp * (tp ?? 1)) { transport in
      var failure: (any Error)?
      let sequence =
        isCanonical && sp * (tp ?? 1) == 1
        ? WholeSequence<Double>()
        : try Self.sequence(
          ring: ring, sp: sp, tp: tp, plan, isCanonical: isCanonical, transport
        ) { body in do { try body() } catch { failure = error } }
      let result = run(sequence: sequence, tensorRank: transport.rank % (tp ?? 1))
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
      "ring \(ring), sp \(sp), tp \(tp ?? 1), \(plan) of \(self)", sourceLocation: location)
  }

  /// The sequence of a rank: `tp` is the fastest axis, then `sp`.
  static func sequence(
    ring: Int, sp: Int, tp: Int?, _ plan: SequencePlan, isCanonical: Bool,
    _ transport: any Transport, attempt: @escaping (() throws -> Void) -> Void
  ) throws -> any SequenceParallel<Double> {
    func exchange(color: Int) throws -> TokenExchange {
      TokenExchange(
        transport: try transport.split(color: color, key: transport.rank), overlaps: true)
    }
    let (piece, tensorRank) = transport.rank.quotientAndRemainder(dividingBy: tp ?? 1)
    let canonical =
      isCanonical
      ? CanonicalTokens<Double>(
        try exchange(color: 0), tensorDegree: tp ?? 1, attempt: attempt) : nil
    var sequence: (any SequenceParallel<Double>)?
    if ring > 1 || (sp == 1 && tp == nil) {
      sequence = RingSequence<Double>(
        try exchange(color: piece % sp * (tp ?? 1) + tensorRank), attempt: attempt)
    }
    if sp > 1 {
      sequence = UlyssesSequence<Double>(
        try exchange(color: piece / sp * (tp ?? 1) + tensorRank), inside: sequence, plan: plan,
        canonical: canonical, attempt: attempt)
    }
    if tp != nil {
      sequence = TensorSequence<Double>(
        try exchange(color: piece), inside: sequence, canonical: canonical, attempt: attempt)
    }
    return try #require(sequence)
  }

  static func distance(_ found: [Double], _ expected: [Double]) -> Double {
    let scale = expected.map(abs).max() ?? 1
    // A number that is none is as far as can be.
    return zip(found, expected).reduce(0) {
      let difference = abs($1.0 - $1.1)
      return difference.isNaN ? .infinity : max($0, difference)
    } / scale
  }
}

extension TrainedRun {
  /// - Parameter ring, sp, tp: ranks that share a microbatch's tokens, those of `tp` the weights too.
  init(
    ranks: Int, ring: Int = 1, sp: Int = 1, tp: Int = 1,
    _ change: (inout RunConfiguration) -> Void = { _ in }
  ) throws {
    let configuration = TinyRun.configuration {
      $0.model.heads = 4
      $0.mesh.ring = .fixed(ring)
      $0.mesh.sp = .fixed(sp)
      $0.mesh.tp = .fixed(tp)
      $0.compute.precision = .fp32
      $0.distill.guidance = 2
      $0.learnAtOnce()
      change(&$0)
    }
    try self.init(configuration, ranks: ranks)
  }

  /// Expects losses, norms and weights of one rank, up to the order of sums in fp32, which is another here.
  func expectAgreement(
    with alone: TrainedRun, location: SourceLocation = #_sourceLocation
  ) throws {
    // One rank of each group speaks for its microbatches: each is counted once, in order.
    #expect(
      alone.microbatches == [0, 1, 2, 3] && microbatches == alone.microbatches,
      sourceLocation: location)
    expectFollowing(alone, from: try alone.start(), "\(configuration.mesh)", location: location)
    // Sums of other parts have other bits: the tokens were shared.
    #expect(distance(to: alone) > 0, sourceLocation: location)
  }
}
