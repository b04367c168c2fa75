// Roles on ranks of their own change where numbers are, not one bit of them.

import Foundation
import MeshLayout
import Models
import ProcessMesh
import TestSupport
import Testing

@testable import Training

@Suite struct SplitRolesTests {
  /// Ranks in all, ranks of the generator, and what each role shards.
  struct Layout: Sendable, CustomTestStringConvertible {
    let ranks: Int
    let generatorRanks: Int
    var stage = 1
    var generatorStage = 1

    var testDescription: String {
      "\(ranks - generatorRanks) score ranks at stage \(stage), \(generatorRanks) generator ranks at "
        + "stage \(generatorStage)"
    }

    func apply(to configuration: inout RunConfiguration) {
      configuration.mesh.placement = .split
      configuration.mesh.generatorRanks = .fixed(generatorRanks)
      configuration.mesh.zeroStage = .fixed(stage)
      configuration.mesh.generatorZeroStage = .fixed(generatorStage)
    }
  }

  static let layouts = [
    Layout(ranks: 2, generatorRanks: 1), Layout(ranks: 2, generatorRanks: 1, stage: 3),
    Layout(ranks: 3, generatorRanks: 1), Layout(ranks: 3, generatorRanks: 2),
    Layout(ranks: 4, generatorRanks: 2), Layout(ranks: 4, generatorRanks: 1),
    Layout(ranks: 4, generatorRanks: 3),
    Layout(ranks: 4, generatorRanks: 2, stage: 2, generatorStage: 2),
    Layout(ranks: 4, generatorRanks: 2, stage: 3, generatorStage: 3),
    Layout(ranks: 4, generatorRanks: 2, stage: 1, generatorStage: 3),
    Layout(ranks: 4, generatorRanks: 2, stage: 3, generatorStage: 1),
  ]

  @Test(arguments: [Recipe.w2s, .allTerms, .dmd2])
  func `jobs with split roles end with the bits of one rank`(_ recipe: Recipe) throws {
    try withTemporaryFolder { folder in
      let reference = try MainJobTests.Reference(recipe.configuration, in: folder)
      for (index, layout) in Self.layouts.enumerated() {
        var configuration = recipe.configuration
        layout.apply(to: &configuration)
        let place = folder.appending(path: "split-\(index)")
        let end = try TinyRun.start(configuration, in: place, ranks: layout.ranks)
        #expect(try end.outcome.get() == .resumeMe, "\(layout.testDescription): \(end.words)")
        try reference.expectEqual(place, "\(recipe), \(layout.testDescription)")
      }
    }
  }

  @Test(arguments: [1, 2, 5], RunConfiguration.Depths.allCases)
  func `any ratio of turns and any depths`(_ ratio: Int, _ depths: RunConfiguration.Depths) throws {
    let configuration = TinyRun.configuration {
      $0.distill.criticRatio = ratio
      $0.distill.depths = depths
      $0.distill.generatorSteps = 3
      $0.distill.steps = 7
      $0.batch.microbatches = 8
    }
    try withTemporaryFolder { folder in
      let reference = try MainJobTests.Reference(configuration, in: folder)
      for layout in [Self.layouts[4], Self.layouts[8]] {
        var split = configuration
        layout.apply(to: &split)
        let place = folder.appending(path: "stage-\(layout.stage)")
        _ = try TinyRun.start(split, in: place, ranks: layout.ranks)
        try reference.expectEqual(place, "ratio \(ratio), \(depths)")
      }
    }
  }

  @Test func `Vchitect's roles are split as well`() throws {
    let configuration = TinyRun.configuration {
      $0.model.architecture = .vchitect
      $0.distill.guidance = 2
      $0.model.recompute = true
    }
    try withTemporaryFolder { folder in
      let reference = try MainJobTests.Reference(configuration, in: folder)
      var split = configuration
      Self.layouts[8].apply(to: &split)
      let place = folder.appending(path: "split")
      _ = try TinyRun.start(split, in: place, ranks: 4)
      try reference.expectEqual(place, "vchitect")
    }
  }

  @Test func `a run goes from one placement to another wherever it is stopped`() throws {
    let colocated = TinyRun.configuration()
    try withTemporaryFolder { folder in
      let reference = try MainJobTests.Reference(colocated, in: folder)
      // From the end of teaching to the end of distillation.
      for stop in 4...9 {
        let place = folder.appending(path: "stop-\(stop)")
        let layout = Self.layouts[4 + stop % 5]
        var split = colocated
        layout.apply(to: &split)
        let starts = [(split, layout.ranks), (colocated, 2)]
        let order = stop % 2 == 0 ? starts : starts.reversed()
        let end = try TinyRun.start(order[0].0, in: place, ranks: order[0].1, stopAt: stop)
        #expect(try end.outcome.get() == .resumeMe, "\(end.words)")
        // Two steps of the other placement, and back.
        _ = try TinyRun.start(order[1].0, in: place, ranks: order[1].1, stopAt: 3)
        _ = try TinyRun.start(order[0].0, in: place, ranks: order[0].1)
        try reference.expectEqual(place, "stopped at poll \(stop), \(layout.testDescription)")
      }
    }
  }

  @Test func `a job with split roles samples, evaluates and reports`() throws {
    try withTemporaryFolder { folder in
      var configuration = TinyRun.configuration()
      Self.layouts[8].apply(to: &configuration)
      let end = try TinyRun.start(configuration, in: folder, ranks: 4, stopAt: 0)
      #expect(try end.outcome.get() == .done, "\(end.words)")
      #expect(end.words.contains("ranks 0 to 1 hold W, the fake DiT"))
      for name in ["report.html", "memory.json", "samples/unconditional-student-2.png"] {
        #expect(FileManager.default.fileExists(atPath: folder.appending(path: name).path))
      }
    }
  }
}
