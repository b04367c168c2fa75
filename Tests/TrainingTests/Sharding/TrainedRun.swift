// Training on ranks that are threads, and what it leaves: for comparing layouts.

import Autodiff
import Foundation
import MeshLayout
import Models
import Planning
import ProcessMesh
import TestSupport

@testable import Training

/// Teach and distill from random weights; no samples, tables or checkpoints.
struct TrainedRun: Sendable {
  /// A loss or gradient norm of the run's metrics, in order of steps.
  struct Reading: Equatable, Sendable {
    let name: String
    let value: Double
  }

  /// W, generator, adapter and the discriminator's head, of each rank.
  let weights: [[Float]]
  let readings: [Reading]
  /// The number of each microbatch, as the ranks agreed on them.
  let microbatches: [Double]

  /// - Parameter inspect: gets W as each rank has it, before any step.
  init(
    _ configuration: RunConfiguration, ranks: Int,
    inspect: @escaping @Sendable (ParameterSet<Float>) -> Void = { _ in }
  ) throws {
    (weights, readings, microbatches) = try withTemporaryFolder { folder in
      let prepared = try TinyRun.prepared(of: configuration, in: folder)
      let runFolder = RunFolder(folder.path + "/run/")
      try FileManager.default.createDirectory(at: runFolder.url, withIntermediateDirectories: true)
      let shape = try Self.shape(configuration, ranks: ranks)
      let results = try InProcessMesh.run(size: ranks) { transport in
        let reporter =
          transport.isRoot
          ? Reporter(style: .plain(interval: 1e9), output: { _ in }) : Reporter()
        try reporter.open(runFolder, resumingAt: nil)
        let context = try RunContext(
          configuration: configuration, folder: runFolder, transport: transport, shape: shape,
          reporter: reporter, isStopRequested: { false })
        let taught = Networks(
          configuration.transformer, nullTokenCount: configuration.model.textTokens,
          makeParameters: context.parameters)
        inspect(taught.base.parameters)
        taught.configuration.initialize(taught.base.parameters, seed: 1)
        let batches = TrainingBatches(prepared, context: context, texts: nil, firstCounter: 0)
        try TeachPhase(context: context, networks: taught, batches: batches)
          .run(from: 0) { _, _ in }
        let networks = try Self.distill(taught, context, batches)
        let sets = [
          networks.base.parameters, networks.generator?.parameters, networks.adapter?.parameters,
          networks.head?.parameters,
        ]
        return (
          weights: sets.compactMap(\.self).flatMap(\.wholeVector),
          microbatches: try context.agreeOnStep(losses: context.microbatches.map(Double.init))
            .losses
        )
      }
      return (
        results.map(\.weights), try Self.readings(in: runFolder.metrics), results[0].microbatches
      )
    }
  }

  /// That of the plan, whose costs take as long as some steps: nobody asks for them where one layout is legal.
  private static func shape(_ configuration: RunConfiguration, ranks: Int) throws -> MeshShape {
    let search = LayoutSearch(
      configuration: configuration, sizes: try WorkloadSizes(configuration), rankCount: ranks)
    let shapes = search.search().shapes
    return try shapes.count == 1
      ? shapes[0] : Coordinator.plan(configuration, rankCount: ranks).shape
  }

  private init(weights: [[Float]], readings: [Reading], microbatches: [Double]) {
    (self.weights, self.readings, self.microbatches) = (weights, readings, microbatches)
  }

  /// The same with the first so many weights.
  func cut(to count: Int) -> TrainedRun {
    TrainedRun(
      weights: weights.map { Array($0.prefix(count)) }, readings: readings,
      microbatches: microbatches)
  }

  /// All networks as all ranks hold them; without the head where roles are split.
  private static func distill(
    _ networks: Networks, _ context: RunContext, _ batches: TrainingBatches
  ) throws -> Networks {
    if let roles = try context.splitRoles() {
      let split = SplitNetworks(roles, from: networks, context: context)
      try DistillPhase(context: context, split: split, batches: batches).run(from: 0) { _, _ in }
      return try split.joined(context)
    }
    if context.configuration.distill.method == .lcm {
      try ConsistencyPhase(context: context, networks: networks, batches: batches)
        .run(from: 0) { _, _ in }
    } else {
      try DistillPhase(context: context, networks: networks, batches: batches)
        .run(from: 0) { _, _ in }
    }
    return networks
  }

  private static func readings(in metrics: URL) throws -> [Reading] {
    try String(contentsOf: metrics, encoding: .utf8).split(separator: "\n").flatMap { line in
      let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
      return (object ?? [:]).filter { $0.key.hasSuffix("loss") || $0.key.hasSuffix("norm") }
        .sorted { $0.key < $1.key }
        .map { Reading(name: $0.key, value: $0.value as? Double ?? .nan) }
    }
  }

  /// The largest difference of weights over the largest weight; infinite where one is not a number, or missing.
  func distance(to other: TrainedRun) -> Float {
    guard weights[0].count == other.weights[0].count else { return .infinity }
    let scale = other.weights[0].reduce(0) { max($0, abs($1)) }
    return zip(weights[0], other.weights[0]).reduce(0) {
      let difference = abs($1.0 - $1.1)
      return difference.isNaN ? .infinity : max($0, difference)
    } / scale
  }
}
