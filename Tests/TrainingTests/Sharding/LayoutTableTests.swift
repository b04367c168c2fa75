import Autodiff
import Foundation
import MeshLayout
import Models
import ProcessMesh
import TestSupport
import Testing

@testable import Training

/// Every layout that the worker accepts on 1, 2, 4 and 8 ranks, for both architectures, against one rank.
@Suite struct LayoutTableTests {
  /// A layout of the table; what is not said is for the coordinator.
  struct Layout: Sendable, CustomStringConvertible {
    let rankCount: Int
    let architecture: Architecture
    var stage = 1
    var dp = 1
    var ring = 1
    var sp = 1
    var tp = 1
    var plan = SequencePlan.spatial

    var description: String {
      "\(architecture.rawValue) on \(rankCount) ranks: stage \(stage), dp \(dp), ring \(ring), sp \(sp) "
        + "\(plan), tp \(tp)"
    }

    /// Whether sums are made but in the tree over microbatches.
    var keepsOrder: Bool { ring * sp * tp == 1 }

    var configuration: RunConfiguration {
      TinyRun.configuration {
        $0.model.architecture = architecture
        $0.model.heads = 4
        $0.model.doubleBlocks = 2
        $0.batch.microbatches = 8
        ($0.teach.steps, $0.distill.steps) = (1, 2)
        $0.compute.precision = .fp32
        $0.mesh.zeroStage = .fixed(stage)
        ($0.mesh.dp, $0.mesh.ring) = (.fixed(dp), .fixed(ring))
        ($0.mesh.sp, $0.mesh.tp) = (.fixed(sp), .fixed(tp))
        $0.mesh.sequencePlan = plan
      }
    }

    var isLegal: Bool {
      configuration.validate(rankCount: rankCount).isEmpty
        && (try? Coordinator.plan(configuration, rankCount: rankCount)) != nil
    }

    static func all(_ architecture: Architecture, ranks: Int) -> [Layout] {
      let degrees = [1, 2, 4, 8].filter { ranks % $0 == 0 }
      var layouts: [Layout] = []
      for stage in 1...3 {
        for dp in degrees {
          for ring in degrees {
            for sp in degrees {
              for tp in degrees where dp * ring * sp * tp <= ranks {
                let plans: [SequencePlan] =
                  architecture == .vchitect && sp > 1 ? [.spatial, .all] : [.spatial]
                layouts += plans.map {
                  Layout(
                    rankCount: ranks, architecture: architecture, stage: stage, dp: dp, ring: ring,
                    sp: sp, tp: tp, plan: $0)
                }
              }
            }
          }
        }
      }
      return layouts.filter(\.isLegal)
    }
  }

  /// What a run leaves: the weights of W, generator and LoRA, losses and gradient norms of all steps.
  struct Outcome {
    let weights: [Float]
    let numbers: [(name: String, value: Double)]
  }

  private func run(_ layout: Layout) throws -> Outcome {
    let configuration = layout.configuration
    return try withTemporaryFolder { folder in
      let prepared = try TinyRun.prepared(in: folder)
      let runFolder = RunFolder(folder.path + "/run/")
      try FileManager.default.createDirectory(at: runFolder.url, withIntermediateDirectories: true)
      let weights = try InProcessMesh.run(size: layout.rankCount) { transport in
        let reporter =
          transport.isRoot
          ? Reporter(style: .plain(interval: 1e9), output: { _ in }) : Reporter()
        try reporter.open(runFolder, resumingAt: nil)
        let plan = try Coordinator.plan(configuration, rankCount: layout.rankCount)
        let context = try RunContext(
          configuration: configuration, folder: runFolder, transport: transport, shape: plan.shape,
          reporter: reporter, isStopRequested: { false })
        let networks = Networks(
          configuration.transformer, nullTokenCount: configuration.model.textTokens,
          makeParameters: context.parameters)
        networks.configuration.initialize(networks.base.parameters, seed: 1)
        let batches = TrainingBatches(prepared, context: context, texts: nil, firstCounter: 0)
        try TeachPhase(context: context, networks: networks, batches: batches)
          .run(from: 0) { _, _ in }
        try DistillPhase(context: context, networks: networks, batches: batches)
          .run(from: 0) { _, _ in }
        let sets = [
          networks.base.parameters, networks.generator?.parameters, networks.adapter?.parameters,
        ]
        return sets.compactMap(\.self).flatMap(\.wholeVector)
      }
      let lines = try String(contentsOf: runFolder.metrics, encoding: .utf8).split(separator: "\n")
      let numbers = try lines.flatMap { line in
        let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
        return (object ?? [:]).filter { $0.key.hasSuffix("loss") || $0.key.hasSuffix("norm") }
          .sorted { $0.key < $1.key }.map { (name: $0.key, value: $0.value as? Double ?? .nan) }
      }
      return Outcome(weights: weights[0], numbers: numbers)
    }
  }

  @Test(arguments: Architecture.allCases, [2, 4, 8])
  func `every legal layout follows one rank, bit for bit where no sum is made in another order`(
    architecture: Architecture, ranks: Int
  ) throws {
    let alone = try run(Layout(rankCount: 1, architecture: architecture))
    #expect(alone.numbers.count == 2 + 4 + 2 && alone.weights.allSatisfy(\.isFinite))
    let scale = alone.weights.reduce(0) { max($0, abs($1)) }
    let layouts = Layout.all(architecture, ranks: ranks)
    #expect(layouts.contains(where: \.keepsOrder) && !layouts.allSatisfy(\.keepsOrder))
    for layout in layouts {
      let found = try run(layout)
      guard !layout.keepsOrder else {
        #expect(found.weights == alone.weights, "\(layout)")
        #expect(found.numbers.map(\.value) == alone.numbers.map(\.value), "\(layout)")
        continue
      }
      let worst = zip(found.weights, alone.weights).reduce(0) { max($0, abs($1.0 - $1.1)) }
      #expect(
        worst <= 1e-5 * scale && found.weights.allSatisfy(\.isFinite), "\(layout): \(worst / scale)"
      )
      for (found, expected) in zip(found.numbers, alone.numbers) {
        // What is zero but for rounding, as the generator's loss while the LoRA is zero, has no relative error.
        #expect(
          abs(found.value - expected.value) <= 1e-5 * abs(expected.value) + 1e-9,
          "\(layout): \(found) for \(expected)")
      }
    }
  }
}
