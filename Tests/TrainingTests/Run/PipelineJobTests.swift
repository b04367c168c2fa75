// Whole jobs with the blocks in stages: the bits of one rank (contract 4.2), whatever the layout and the schedule.

import Diffusion
import Foundation
import Models
import TestSupport
import Testing

@testable import Training

struct PipelineJobTests {
  /// How a job's ranks are placed.
  struct Layout: Sendable, CustomTestStringConvertible {
    let stages: Int
    var dp = 1
    var zero = 1
    let schedule: RunConfiguration.PipelineOrder

    var ranks: Int { stages * dp * zero }
    var testDescription: String { "\(stages) stages × \(dp) × \(zero), \(schedule)" }

    func place(_ configuration: RunConfiguration) -> RunConfiguration {
      var placed = configuration
      placed.mesh.stages = .fixed(stages)
      placed.mesh.dp = .fixed(dp)
      placed.mesh.schedule = schedule
      return placed
    }

    static let all: [Layout] = RunConfiguration.PipelineOrder.allCases.flatMap { schedule in
      [
        Layout(stages: 2, schedule: schedule), Layout(stages: 3, schedule: schedule),
        Layout(stages: 4, schedule: schedule), Layout(stages: 2, dp: 2, schedule: schedule),
        Layout(stages: 3, dp: 2, schedule: schedule),
        Layout(stages: 2, zero: 2, schedule: schedule),
        Layout(stages: 2, dp: 2, zero: 2, schedule: schedule),
      ]
    }
  }

  /// Four blocks of two kinds, and what differs.
  static let recipes: [(name: String, change: @Sendable (inout RunConfiguration) -> Void)] = [
    ("spread depths, guided", { $0.distill.guidance = 2 }),
    (
      "shared depths, recomputed, adapter off",
      {
        $0.distill.depths = .shared
        $0.distill.generatorSteps = 3
        $0.distill.method = .dmd2
        $0.model.recompute = true
        $0.model.recomputedShare = 0.5
      }
    ),
    (
      "ground truth, blocks of two streams alone",
      {
        $0.distill.rollout = .data
        $0.distill.lambdaGroundTruth = 0.25
        $0.model.doubleBlocks = 5
        $0.model.singleBlocks = 0
        $0.batch.samples = 2
      }
    ),
    ("LCM", { $0.distill.method = .lcm }),
    (
      "inputs of blocks in a file",
      {
        $0.model.recompute = true
        $0.model.offload = true
        $0.distill.guidance = 3
        // Else they would be too small for it.
        $0.model.heads = 4
        $0.batch.samples = 8
      }
    ),
    (
      "Vchitect-2.0, guided, recomputed",
      {
        $0.model.architecture = .vchitect
        $0.model.doubleBlocks = 4
        $0.distill.guidance = 2
        $0.model.recompute = true
        $0.model.recomputedShare = 0.5
      }
    ),
  ]

  static func configuration(_ recipe: Int) -> RunConfiguration {
    TinyRun.configuration {
      ($0.model.doubleBlocks, $0.model.singleBlocks) = (2, 2)
      $0.batch.microbatches = 4
      recipes[recipe].change(&$0)
    }
  }

  @Test(arguments: recipes.indices)
  func `jobs in stages end with the bits of one rank`(_ recipe: Int) throws {
    let configuration = Self.configuration(recipe)
    try withTemporaryFolder { folder in
      var alone = configuration
      alone.model.offload = false
      let reference = try MainJobTests.Reference(alone, in: folder)
      for (number, layout) in Layout.all.enumerated() {
        let place = folder.appending(path: "job-\(number)")
        _ = try TinyRun.start(layout.place(configuration), in: place, ranks: layout.ranks)
        try reference.expectEqual(
          place, "\(Self.recipes[recipe].name), \(layout.testDescription)")
      }
    }
  }

  @Test(arguments: RunConfiguration.PipelineOrder.allCases)
  func `microbatches that no number divides`(_ schedule: RunConfiguration.PipelineOrder) throws {
    for (microbatches, stages) in [(1, 2), (3, 2), (5, 3), (2, 4)] {
      var configuration = Self.configuration(0)
      configuration.batch.microbatches = microbatches
      try withTemporaryFolder { folder in
        let reference = try MainJobTests.Reference(configuration, in: folder)
        let place = folder.appending(path: "staged")
        let layout = Layout(stages: stages, schedule: schedule)
        _ = try TinyRun.start(layout.place(configuration), in: place, ranks: layout.ranks)
        try reference.expectEqual(place, "\(microbatches) over \(stages) stages")
      }
    }
  }

  @Test func `a job stopped in stages goes on with other stages and with none`() throws {
    let configuration = Self.configuration(0)
    try withTemporaryFolder { folder in
      let reference = try MainJobTests.Reference(configuration, in: folder)
      let place = folder.appending(path: "stopped")
      func start(_ layout: Layout?, ranks: Int, stopAt: Int?) throws {
        let end = try TinyRun.start(
          layout?.place(configuration) ?? configuration, in: place, ranks: ranks, stopAt: stopAt)
        #expect(try end.outcome.get() == .resumeMe, "\(end.words)")
      }
      try start(Layout(stages: 2, schedule: .oneForwardOneBackward), ranks: 2, stopAt: 3)
      try start(nil, ranks: 1, stopAt: 3)
      try start(Layout(stages: 3, schedule: .gPipe), ranks: 3, stopAt: 3)
      try start(Layout(stages: 2, dp: 2, schedule: .gPipe), ranks: 4, stopAt: nil)
      try reference.expectEqual(place, "stopped three times")
    }
  }

  @Test func `samples and tables are those of one rank`() throws {
    let configuration = Self.configuration(0)
    func results(_ configuration: RunConfiguration, ranks: Int) throws -> [String: Data] {
      try withTemporaryFolder { folder in
        let end = try TinyRun.start(configuration, in: folder, ranks: ranks, stopAt: 0)
        #expect(try end.outcome.get() == .done, "\(end.words)")
        var files: [String: Data] = [:]
        let samples = folder.appending(path: "samples")
        for name in try FileManager.default.contentsOfDirectory(atPath: samples.path)
        where name.hasSuffix(".png") {
          files[name] = try Data(contentsOf: samples.appending(path: name))
        }
        return files
      }
    }
    let alone = try results(configuration, ranks: 1)
    let layout = Layout(stages: 2, dp: 2, schedule: .oneForwardOneBackward)
    #expect(!alone.isEmpty)
    #expect(try results(layout.place(configuration), ranks: 4) == alone)
  }
}
