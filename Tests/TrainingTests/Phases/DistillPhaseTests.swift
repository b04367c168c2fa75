import Autodiff
import Basics
import Compression
import DenseKernels
import Diffusion
import Foundation
import Models
import ProcessMesh
import TestSupport
import Testing

@testable import Training

/// Mechanical checks of the specification (section 8: b, d, e).
@Suite struct DistillPhaseTests {
  struct After: Equatable, Sendable {
    var generatorUpdates: Int?
    var criticUpdates: Int?
    var headUpdates: Int?
    var baseBefore: UInt32
    var baseAfter: UInt32
    var generator: UInt32
    var fake: UInt32
  }

  /// `steps` steps of the phase alone, from random weights.
  func run(
    steps: Int, ranks: Int,
    _ change: @escaping @Sendable (inout RunConfiguration) -> Void = { _ in }
  ) throws -> [After] {
    try withTemporaryFolder { folder in
      let configuration = TinyRun.configuration {
        change(&$0)
        $0.distill.steps = steps
      }
      let prepared = try TinyRun.prepared(in: folder)
      return try InProcessMesh.run(size: ranks) { transport in
        let context = try RunContext(
          configuration: configuration, folder: RunFolder(folder.path + "/"),
          transport: transport, reporter: Reporter(), isStopRequested: { false })
        let networks = Networks(
          configuration.transformer, nullTokenCount: configuration.model.textTokens,
          arena: context.arena)
        // Random gates: those of a fresh network are zero and let no gradient reach the LoRA.
        let base = networks.base.parameters
        base.initialize(seed: 4)
        let noise = RandomStream(seed: 4, purpose: .tests).normals(count: base.values.count)
        Float.add(0.05, Buffer(noise), to: base.values)
        func checksum(_ buffer: Buffer<Float>?) -> UInt32 {
          guard let buffer else { return 0 }
          return buffer.withBytes { CRC32C.checksum(of: $0) }
        }
        let before = checksum(networks.base.parameters.values)
        let phase = DistillPhase(
          context: context, networks: networks,
          batches: TrainingBatches(prepared, context: context, texts: nil, firstCounter: 0))
        var saves: [Int] = []
        try phase.run(from: 0) { done, mustStop in
          saves.append(done)
          #expect(!mustStop)
        }
        #expect(saves == Array(1..<(steps + 1)))
        return After(
          generatorUpdates: phase.generator?.optimizer.updateCount,
          criticUpdates: phase.score?.adapterOptimizer.updateCount,
          headUpdates: phase.score?.headOptimizer?.updateCount, baseBefore: before,
          baseAfter: checksum(networks.base.parameters.values),
          generator: checksum(networks.generator?.parameters.values),
          fake: checksum(networks.adapter?.parameters.values))
      }
    }
  }

  @Test(arguments: 1...5)
  func `M steps make ⌈M / ratio⌉ generator updates and M critic updates`(_ ratio: Int) throws {
    for steps in [1, 4, 5] {
      for after in try run(steps: steps, ranks: 2, { $0.distill.criticRatio = ratio }) {
        #expect(after.generatorUpdates == (steps + ratio - 1) / ratio)
        #expect(after.criticUpdates == steps)
        #expect(after.headUpdates == nil)
      }
    }
  }

  @Test func `W never changes, with all terms`() throws {
    let ends = try run(steps: 4, ranks: 2) {
      $0.distill.rollout = .data
      $0.distill.lambdaGroundTruth = 0.25
      $0.distill.lambdaAdversarial = 5e-3
      $0.distill.guidance = 3
    }
    for after in ends {
      #expect(after.baseAfter == after.baseBefore)
      #expect(after.headUpdates == 4)
      #expect(after == ends[0], "ranks agree on everything")
    }
  }

  @Test
  func
    `the two readings of the ground-truth term train other generators, each the same on any ranks`()
    throws
  {
    let generators = try GroundTruthTerm.allCases.map { term in
      let ends = try [1, 4].map { ranks in
        try run(steps: 2, ranks: ranks) {
          $0.distill.rollout = .data
          $0.distill.lambdaGroundTruth = 0.25
          $0.distill.groundTruthTerm = term
        }[0]
      }
      #expect(ends[0] == ends[1])
      return ends[0].generator
    }
    #expect(Set(generators).count == 2)
  }

  @Test func `critic turns train the fake DiT and leave the generator alone`() throws {
    let adversarial: @Sendable (inout RunConfiguration) -> Void = {
      $0.distill.criticRatio = 100
      $0.distill.lambdaAdversarial = 5e-3
    }
    let once = try run(steps: 1, ranks: 1, adversarial)[0]
    let often = try run(steps: 4, ranks: 1, adversarial)[0]
    #expect(once.generatorUpdates == 1 && often.generatorUpdates == 1)
    #expect(once.generator == often.generator)
    #expect(once.fake != often.fake)
  }

  @Test func `lines of generator turns tell the distance of the matching and what was not finite`()
    throws
  {
    try withTemporaryFolder { folder in
      _ = try TinyRun.start(TinyRun.configuration(), in: folder, ranks: 2)
      let text = try String(contentsOf: folder.appending(path: "metrics.jsonl"), encoding: .utf8)
      let lines = try text.split(separator: "\n").map {
        try #require(JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
      }.filter { $0["phase"] as? String == "distill" }
      #expect(lines.count == 5)
      for (step, line) in lines.enumerated() {
        let distance = line["matching_distance"] as? Double
        if step % 2 == 0 { #expect(try #require(distance) > 0) } else { #expect(distance == nil) }
        #expect(line["matching_nonfinite"] as? Double == (step % 2 == 0 ? 0 : nil))
      }
    }
  }
}
