// Whole networks whose recomputed blocks keep their inputs in a file train as those that keep them in memory, and the file
// holds what the specification says (check 9 of Vchitect-2.0, §10).

import Autodiff
import DenseKernels
import Foundation
import MeshLayout
import Models
import Testing

@testable import Training

struct OffloadTests {
  /// Ranks that are in a row, and how.
  enum Layout: CaseIterable, Sendable {
    case alone, sharedTokens, stages

    var rankCount: Int { self == .alone ? 1 : 2 }
    var sp: Int { self == .sharedTokens ? 2 : 1 }
    var stages: Int { self == .stages ? 2 : 1 }
  }

  struct Run {
    var weights: [[Float]]
    var losses: [String]
    /// What the file of each rank has held at most, while W was taught.
    var fileByteCounts: [Int]
  }

  /// Four blocks, of two kinds where there are two. Tokens of either stream, or half of them, are enough to go to the
  /// file; the condition is not.
  private func changed(
    _ architecture: Architecture, _ layout: Layout, recomputedShare: Double, offload: Bool
  ) -> RunConfiguration {
    TinyRun.configuration {
      $0.model.architecture = architecture
      $0.model.heads = 4
      ($0.model.doubleBlocks, $0.model.singleBlocks) =
        architecture == .vchitect ? (4, $0.model.singleBlocks) : (2, 2)
      $0.model.textTokens = 8
      $0.model.recompute = true
      $0.model.recomputedShare = recomputedShare
      $0.model.offload = offload
      ($0.batch.microbatches, $0.batch.samples) = (3, 16)
      ($0.teach.steps, $0.distill.steps) = (2, 2)
      $0.mesh.sp = .fixed(layout.sp)
      $0.mesh.stages = .fixed(layout.stages)
      $0.mesh.schedule = .oneForwardOneBackward
    }
  }

  /// Teaches, and distills.
  private func run(_ configuration: RunConfiguration, _ shape: MeshShape) throws -> Run {
    let (found, metrics) = try RunOnThreads.start(configuration, shape: shape) { rank in
      let (context, batches, networks) = (rank.context, rank.batches, rank.makeNetworks())
      try TeachPhase(context: context, networks: networks, batches: batches)
        .run(from: 0) { _, _ in }
      let fileByteCount = try Self.byteCount(ofFileIn: rank.offloadFolder)
      try DistillPhase(context: context, networks: networks, batches: batches)
        .run(from: 0) { _, _ in }
      let sets: [ParameterSet<Float>?] = [
        networks.base.parameters, networks.generator?.parameters, networks.adapter?.parameters,
      ]
      return (sets.compactMap(\.self).flatMap(\.wholeVector), fileByteCount)
    }
    return Run(
      weights: found.map(\.0), losses: TinyRun.losses(of: metrics),
      fileByteCounts: found.map(\.1))
  }

  /// The size of this process's file there, which has no name any more; it never shrinks.
  private static func byteCount(ofFileIn folder: URL) throws -> Int {
    let place = folder.pathComponents.suffix(2).joined(separator: "/")
    for name in try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd") {
      let entry = "/proc/self/fd/\(name)"
      // Others may be closed meanwhile.
      let path = try? FileManager.default.destinationOfSymbolicLink(atPath: entry)
      if path?.contains("\(place)/activations-") == true {
        return try PositionedFile(entry, for: .reading).byteCount
      }
    }
    return 0
  }

  /// What the file of each rank holds at its fullest.
  ///
  /// Both streams of a block are stored: the specification's B·F·S·D counts those of the image alone, as LiteGen stores
  /// them; behind HunyuanVideo's blocks of two streams both are in one. What was stored last is still in memory, so it
  /// comes to the file only where another microbatch follows before it is asked for.
  private func expectedByteCounts(
    _ configuration: RunConfiguration, _ layout: Layout, share: Double
  ) -> [Int] {
    let latents = configuration.latentShape  // [C, F, H, W]
    let isVchitect = configuration.model.architecture == .vchitect
    let rows = configuration.batch.samples
    let video = rows * latents[1] * latents[2] * latents[3] / 4
    // Every frame has a copy of Vchitect's text.
    let text = rows * configuration.model.textTokens * (isVchitect ? latents[1] : 1)
    let width = configuration.transformer.width
    func byteCount(_ tokens: Int) -> Int { tokens * width * 4 / layout.sp }
    let blocksPerStage = 4 / layout.stages
    return (0..<layout.rankCount).map { rank in
      let stage = layout == .stages ? rank : 0
      let recomputed = share == 1 ? blocksPerStage : blocksPerStage / 2
      let whole = recomputed * byteCount(video + text)
      let inFlight = layout.stages - stage
      if inFlight > 1 { return inFlight * whole }
      return whole - byteCount(isVchitect ? text : video + text)
    }
  }

  @Test(arguments: Architecture.allCases, Layout.allCases)
  func `a network with inputs of blocks in a file trains to the same bits`(
    architecture: Architecture, layout: Layout
  ) throws {
    func configuration(_ share: Double, offload: Bool) -> RunConfiguration {
      changed(architecture, layout, recomputedShare: share, offload: offload)
    }
    // The plan takes longer than some steps; where activations are changes nothing of it here.
    let shape = try Coordinator.plan(
      configuration(1, offload: false), rankCount: layout.rankCount
    ).shape
    let expected = try run(configuration(1, offload: false), shape)
    #expect(expected.fileByteCounts.allSatisfy { $0 == 0 } && !expected.losses.isEmpty)
    // Without a file no share of recomputed blocks changes a bit: the tests of the transformers.
    for share in [1, 0.5] {
      let offloaded = configuration(share, offload: true)
      let found = try run(offloaded, shape)
      // Compared outside of the expectations: a failure would print every weight.
      let isSame = found.weights == expected.weights
      #expect(isSame, "\(share) of the blocks")
      #expect(found.losses == expected.losses, "\(share) of the blocks")
      #expect(
        found.fileByteCounts == expectedByteCounts(offloaded, layout, share: share),
        "\(share) of the blocks")
    }
  }
}
