// Training on ranks that are threads, and what it leaves: for comparing layouts.

import Autodiff
import MeshLayout
import Models
import Planning
import Testing

@testable import Training

extension RunConfiguration {
  /// Lets every network move far enough in some steps to be told from one that was not trained, and its average from
  /// itself: in a real run either takes hundreds.
  mutating func learnAtOnce() {
    (distill.generatorLearningRate, distill.criticLearningRate) = (2.5e-3, 2.5e-3)
    (teach.ema, distill.ema) = (0.5, 0.5)
  }
}

/// Teach and distill from random weights; no samples, tables or checkpoints.
struct TrainedRun: Sendable {
  /// A loss or gradient norm of the run's metrics, in order of steps.
  struct Reading: Equatable, Sendable {
    let name: String
    let value: Double
  }

  let configuration: RunConfiguration
  /// W, generator, adapter and the discriminator's head, of each rank.
  let weights: [[Float]]
  /// The elements of each of these.
  let counts: [Int]
  let readings: [Reading]
  /// The number of each microbatch, as the ranks agreed on them.
  let microbatches: [Double]

  /// - Parameter inspect: gets W as each rank has it, before any step.
  init(
    _ configuration: RunConfiguration, ranks: Int,
    inspect: @escaping @Sendable (ParameterSet<Float>) -> Void = { _ in }
  ) throws {
    self.configuration = configuration
    let shape = try Self.shape(configuration, ranks: ranks)
    let (results, metrics) = try RunOnThreads.start(configuration, shape: shape) { rank in
      let (context, batches) = (rank.context, rank.batches)
      let taught = rank.makeNetworks()
      inspect(taught.base.parameters)
      try TeachPhase(context: context, networks: taught, batches: batches)
        .run(from: 0) { _, _ in }
      let networks = try Self.distill(taught, on: rank)
      let sets = [
        networks.base.parameters, networks.generator?.parameters, networks.adapter?.parameters,
        networks.head?.parameters,
      ].compactMap { $0?.wholeVector }
      return (
        weights: sets.flatMap(\.self), counts: sets.map(\.count),
        microbatches: try context.agreeOnStep(losses: context.microbatches.map(Double.init))
          .losses
      )
    }
    (weights, counts, microbatches) = (
      results.map(\.weights), results[0].counts, results[0].microbatches
    )
    readings = Self.readings(of: metrics)
  }

  /// That of the plan, whose costs take as long as some steps: nobody asks for them where one layout is legal.
  private static func shape(_ configuration: RunConfiguration, ranks: Int) throws -> MeshShape {
    let search = LayoutSearch(
      configuration: configuration, sizes: try WorkloadSizes(configuration), rankCount: ranks)
    let shapes = search.search().shapes
    return try shapes.count == 1
      ? shapes[0] : Coordinator.plan(configuration, rankCount: ranks).shape
  }

  private init(
    _ configuration: RunConfiguration, weights: [[Float]], counts: [Int], readings: [Reading],
    microbatches: [Double]
  ) {
    self.configuration = configuration
    (self.weights, self.counts) = (weights, counts)
    (self.readings, self.microbatches) = (readings, microbatches)
  }

  /// What is compared with networks that were trained by split roles, which have no head when they are joined.
  var withoutHead: TrainedRun {
    let kept = Array(counts.prefix(3))
    return TrainedRun(
      configuration, weights: weights.map { Array($0.prefix(kept.reduce(0, +))) }, counts: kept,
      readings: readings, microbatches: microbatches)
  }

  /// The networks that the run begins with, in the places of those that it ends with: its generator is W.
  func start() throws -> TrainedRun {
    var still = configuration
    still.teach.learningRate = 0
    (still.distill.generatorLearningRate, still.distill.criticLearningRate) = (0, 0)
    (still.teach.steps, still.distill.steps) = (1, 1)
    (still.mesh, still.batch.microbatches) = (RunConfiguration().mesh, 1)
    return try TrainedRun(still, ranks: 1)
  }

  /// All networks as all ranks hold them; without the head where roles are split.
  private static func distill(_ networks: Networks, on rank: RunOnThreads) throws -> Networks {
    let (context, batches) = (rank.context, rank.batches)
    if let roles = try context.splitRoles() {
      let split = SplitNetworks(roles, from: networks, context: context)
      try DistillPhase(context: context, split: split, batches: batches).run(from: 0) { _, _ in }
      return try split.joined(context)
    }
    try rank.distillTogether(networks)
    return networks
  }

  private static func readings(of metrics: [[String: Any]]) -> [Reading] {
    metrics.flatMap { fields in
      fields.filter { $0.key.hasSuffix("loss") || $0.key.hasSuffix("norm") }
        .sorted { $0.key < $1.key }
        .map { Reading(name: $0.key, value: $0.value as? Double ?? .nan) }
    }
  }

  /// The largest difference of weights over the largest weight; infinite where one is not a number, or missing.
  func distance(to other: TrainedRun) -> Float {
    guard counts == other.counts else { return .infinity }
    let scale = other.weights[0].reduce(0) { max($0, abs($1)) }
    return zip(weights[0], other.weights[0]).reduce(0) {
      let difference = abs($1.0 - $1.1)
      return difference.isNaN ? .infinity : max($0, difference)
    } / scale
  }

  /// How far each network is from that of `other`, over how far that one has moved from `start`, in Euclidean norms;
  /// infinite where one is missing or has not moved.
  func distances(to other: TrainedRun, movedFrom start: TrainedRun) -> [Double] {
    guard counts == other.counts, counts == start.counts else { return [.infinity] }
    var first = 0
    return counts.map { count in
      let range = first..<first + count
      first += count
      func norm(_ a: TrainedRun, _ b: TrainedRun) -> Double {
        zip(a.weights[0][range], b.weights[0][range]).reduce(0) { sum, pair in
          let difference = Double(pair.0) - Double(pair.1)
          return sum + difference * difference
        }.squareRoot()
      }
      let distance = norm(self, other) / norm(other, start)
      return distance.isNaN ? .infinity : distance
    }
  }

  /// Expects losses, norms and weights of one rank, up to the order of sums in fp32.
  func expectFollowing(
    _ alone: TrainedRun, from start: TrainedRun, _ name: String,
    location: SourceLocation = #_sourceLocation
  ) {
    #expect(readings.map(\.name) == alone.readings.map(\.name), "\(name)", sourceLocation: location)
    for (found, expected) in zip(readings, alone.readings) {
      // What is zero but for rounding, as the generator's loss while the LoRA is zero, has no relative error.
      let bound = 1e-5 * abs(expected.value) + 1e-9
      #expect(
        abs(found.value - expected.value) <= bound, "\(name): \(found) for \(expected)",
        sourceLocation: location)
    }
    #expect(distance(to: alone) <= 1e-5, "\(name)", sourceLocation: location)
    let distances = distances(to: alone, movedFrom: start)
    #expect(distances.allSatisfy { $0 <= 1e-3 }, "\(name): \(distances)", sourceLocation: location)
  }
}

/// Expects weights, on all ranks, losses, norms and the numbers of microbatches of another run to the last bit.
func expect(
  _ found: TrainedRun, toEqual expected: TrainedRun, _ name: String,
  location: SourceLocation = #_sourceLocation
) {
  // Compared outside of the expectation: a failure would print every weight.
  let areSame = found.weights.allSatisfy { $0 == expected.weights[0] }
  #expect(
    areSame, "weights of \(name) differ by \(found.distance(to: expected))",
    sourceLocation: location)
  #expect(found.readings == expected.readings, "\(name)", sourceLocation: location)
  #expect(found.microbatches == expected.microbatches, "\(name)", sourceLocation: location)
}
