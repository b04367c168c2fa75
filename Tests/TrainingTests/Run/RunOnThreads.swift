// What the worker gives the phases of a run, on ranks that are threads: for tests that run phases themselves.

import Foundation
import MeshLayout
import Models
import ProcessMesh
import TestSupport
import VideoData

@testable import Training

/// One rank of a run that has not begun.
struct RunOnThreads {
  let context: RunContext
  let batches: TrainingBatches
  /// What passes between the ranks from now on.
  let log: TrafficLog
  /// Where this rank alone keeps activations, if it does.
  let offloadFolder: URL

  /// W with random weights, and places for what is made of it.
  func makeNetworks() -> Networks {
    let configuration = context.configuration
    let networks = Networks(
      configuration.transformer, nullTokenCount: configuration.model.textTokens,
      makeParameters: context.parameters)
    networks.configuration.initialize(networks.base.parameters, seed: 1)
    return networks
  }

  /// Distills where all ranks have all roles, by the method of the configuration.
  func distillTogether(_ networks: Networks) throws {
    if context.configuration.distill.method == .lcm {
      try ConsistencyPhase(context: context, networks: networks, batches: batches)
        .run(from: 0) { _, _ in }
    } else {
      try DistillPhase(context: context, networks: networks, batches: batches)
        .run(from: 0) { _, _ in }
    }
  }

  /// Has every rank run `body`, in a folder that is gone afterwards. Nothing is read of texts or checkpoints.
  ///
  /// - Parameters:
  ///   - keepsPackedWeights, arenaByteLimit: what the plan says.
  ///   - nodes: the pretended node of every rank.
  /// - Returns: what the ranks returned, and the lines of the run's metrics.
  static func start<Result: Sendable>(
    _ configuration: RunConfiguration, shape: MeshShape, keepsPackedWeights: Bool = false,
    arenaByteLimit: Int? = nil, nodes: [Int]? = nil,
    _ body: @escaping @Sendable (RunOnThreads) throws -> Result
  ) throws -> (results: [Result], metrics: [[String: Any]]) {
    try withTemporaryFolder { folder in
      let prepared = try TinyRun.prepared(of: configuration)
      let runFolder = RunFolder(folder.path + "/run/")
      try FileManager.default.createDirectory(at: runFolder.url, withIntermediateDirectories: true)
      let results = try InProcessMesh.run(size: shape.rankCount, nodes: nodes) { transport in
        let recorder = RecordingTransport(transport)
        let reporter =
          transport.isRoot
          ? Reporter(style: .plain(interval: 1e9), output: { _ in }) : Reporter()
        try reporter.open(runFolder, resumingAt: nil)
        let offloadFolder = folder.appending(path: "offload-\(transport.rank)")
        var configuration = configuration
        if configuration.model.offload {
          configuration.model.offloadFolder = offloadFolder.path
        }
        let context = try RunContext(
          configuration: configuration, folder: runFolder, transport: recorder, shape: shape,
          keepsPackedWeights: keepsPackedWeights, arenaByteLimit: arenaByteLimit,
          reporter: reporter, isStopRequested: { false })
        try context.openActivationStore()
        let batches = TrainingBatches(prepared, context: context, texts: nil, firstCounter: 0)
        return try body(
          RunOnThreads(
            context: context, batches: batches, log: recorder.log, offloadFolder: offloadFolder))
      }
      return (results, try TinyRun.metrics(in: runFolder))
    }
  }
}
