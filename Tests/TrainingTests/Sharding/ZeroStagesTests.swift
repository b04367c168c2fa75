// What the ranks shard changes where numbers are, not one bit of them (contract 4.2).

import Autodiff
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

struct ZeroStagesTests {
  /// Teach and distill on `ranks` ranks.
  private func run(
    _ ranks: Int, dp: Int = 1, stage: Int, sp: Int = 1, _ change: (inout RunConfiguration) -> Void
  ) throws -> TrainedRun {
    let configuration = TinyRun.configuration {
      $0.model.heads = 2
      $0.model.doubleBlocks = 2
      $0.batch.microbatches = 8
      $0.mesh.zeroStage = .fixed(stage)
      $0.mesh.dp = .fixed(dp)
      $0.mesh.sp = .fixed(sp)
      $0.compute.precision = .fp32
      change(&$0)
    }
    return try TrainedRun(configuration, ranks: ranks) {
      #expect($0.isWhole == (stage < 3 || ranks == dp))
    }
  }

  static let changes: [(name: String, change: @Sendable (inout RunConfiguration) -> Void)] = [
    ("spread depths, guided", { $0.distill.guidance = 2 }),
    (
      "shared depths, recomputed",
      {
        $0.distill.depths = .shared
        $0.distill.generatorSteps = 3
        $0.model.recompute = true
      }
    ),
    (
      "adversarial",
      {
        $0.distill.lambdaAdversarial = 0.1
        $0.distill.alphaWeak = 0
      }
    ),
    ("LCM", { $0.distill.method = .lcm }),
    (
      "Vchitect, guided",
      {
        $0.model.architecture = .vchitect
        $0.distill.guidance = 2
      }
    ),
    (
      "Vchitect, adversarial, recomputed",
      {
        $0.model.architecture = .vchitect
        $0.model.variant = .v1
        $0.model.recompute = true
        $0.distill.lambdaAdversarial = 0.1
      }
    ),
  ]

  @Test(arguments: changes.indices)
  func `stages 2 and 3 have the bits of one rank`(_ index: Int) throws {
    let (name, change) = Self.changes[index]
    let alone = try run(1, stage: 1, change)
    #expect(alone.microbatches == (0..<8).map(Double.init))
    for (ranks, stage) in [(1, 3), (2, 2), (2, 3), (4, 2), (4, 3), (8, 3)] {
      expect(
        try run(ranks, stage: stage, change), toEqual: alone,
        "\(name), \(ranks) ranks, stage \(stage)")
    }
  }

  @Test(
    arguments: [(2, 2, 1), (4, 2, 1), (4, 2, 2), (4, 2, 3), (8, 2, 3), (8, 4, 3), (8, 8, 1)],
    Architecture.allCases)
  func `replicas of sharded state have the bits of one rank`(
    layout: (ranks: Int, dp: Int, stage: Int), architecture: Architecture
  ) throws {
    func spread(_ configuration: inout RunConfiguration) {
      configuration.distill.generatorSteps = 3
      configuration.model.architecture = architecture
    }
    expect(
      try run(layout.ranks, dp: layout.dp, stage: layout.stage, spread),
      toEqual: try run(1, stage: 1, spread), "\(layout)")
  }

  @Test(arguments: [
    (2, 2, Architecture.hunyuanVideo), (2, 3, .hunyuanVideo), (4, 3, .hunyuanVideo),
    (4, 3, .vchitect),
  ])
  func `what goes on beside the computation does not change a bit`(
    layout: (ranks: Int, stage: Int, architecture: Architecture)
  ) throws {
    func change(_ overlap: ExchangeConfiguration.Overlap) -> (inout RunConfiguration) -> Void {
      {
        $0.exchange.overlap = overlap
        $0.model.architecture = layout.architecture
        $0.distill.guidance = 2
        $0.model.recompute = true
      }
    }
    let alone = try run(1, stage: 1, change(.off))
    for overlap in ExchangeConfiguration.Overlap.allCases {
      expect(
        try run(layout.ranks, stage: layout.stage, change(overlap)), toEqual: alone,
        "\(layout), overlap \(overlap)")
    }
  }

  @Test func `stages go with shared tokens`() throws {
    let alone = try run(1, stage: 1) { $0.learnAtOnce() }
    let shared = try run(4, stage: 3, sp: 2) { $0.learnAtOnce() }
    let agree = shared.weights.allSatisfy { $0 == shared.weights[0] }
    #expect(agree)
    shared.expectFollowing(alone, from: try alone.start(), "sp 2 at stage 3")
    #expect(shared.microbatches == alone.microbatches)
  }

  /// A job that was saved at one stage goes on at another, and ends with the same files.
  @Test func `jobs at all stages write the same weights, also resumed at another stage`() throws {
    func configuration(_ stage: Int, dp: Int = 1) -> RunConfiguration {
      TinyRun.configuration {
        $0.mesh.zeroStage = .fixed(stage)
        $0.mesh.dp = .fixed(dp)
      }
    }
    func files(_ folder: URL) throws -> [String: Data] {
      var files: [String: Data] = [:]
      for role in ["real", "fake", "generator"] {
        let place = folder.appending(path: "final/\(role)")
        for name in try FileManager.default.contentsOfDirectory(atPath: place.path) {
          files["\(role)/\(name)"] = try Data(contentsOf: place.appending(path: name))
        }
      }
      return files
    }
    let alone = try withTemporaryFolder { folder in
      _ = try TinyRun.start(configuration(1), in: folder, ranks: 1)
      return try files(folder)
    }
    #expect(alone.count >= 6)
    for (before, after, replicas) in [(1, 3, 1), (2, 3, 2), (3, 1, 2), (3, 3, 2)] {
      try withTemporaryFolder { folder in
        let stopped = try TinyRun.start(configuration(before), in: folder, ranks: 2, stopAt: 7)
        #expect(try stopped.outcome.get() == .resumeMe, "\(stopped.words)")
        let ended = try TinyRun.start(configuration(after, dp: replicas), in: folder, ranks: 4)
        #expect((try? ended.outcome.get()) != nil, "\(ended)")
        let found = try files(folder)
        #expect(found.keys.sorted() == alone.keys.sorted())
        for (name, data) in alone {
          #expect(found[name] == data, "\(name), stage \(before) then \(after)")
        }
      }
    }
  }

  /// Sampling and tables run through blocks that come and go, on ranks with unequal work.
  @Test func `a job at stage 3 runs to its end`() throws {
    try withTemporaryFolder { folder in
      let configuration = TinyRun.configuration {
        $0.mesh.zeroStage = .fixed(3)
        $0.evaluate.samples = 5
        $0.evaluate.batch = 2
        $0.sample.clips = 3
      }
      let ended = try TinyRun.start(configuration, in: folder, ranks: 4, stopAt: 0)
      #expect(try ended.outcome.get() == .done, "\(ended.words)")
      let other = TinyRun.configuration {
        $0.evaluate.samples = 5
        $0.evaluate.batch = 2
        $0.sample.clips = 3
      }
      try withTemporaryFolder { plain in
        _ = try TinyRun.start(other, in: plain, ranks: 1, stopAt: 0)
        for name in ["teacher-2-of-5.json", "student-2-of-5.json"] {
          func distance(_ folder: URL) throws -> Double? {
            let data = try Data(contentsOf: folder.appending(path: "evaluation/\(name)"))
            let row = try JSONSerialization.jsonObject(with: data) as? [String: Any]
            return row?["frechetDistance"] as? Double
          }
          let (sharded, whole) = (try distance(folder), try distance(plain))
          #expect(sharded != nil && sharded == whole, "\(name)")
        }
      }
    }
  }
}
