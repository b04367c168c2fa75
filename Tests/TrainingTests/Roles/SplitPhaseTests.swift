// What ranks of split roles hold, send and do when one of them fails.

import Exchange
import Foundation
import MeshLayout
import Models
import Planning
import ProcessMesh
import Tensors
import TestSupport
import Testing
import VideoData

@testable import Training

/// The distill phase alone on ranks of split roles.
private struct SplitPhase {
  let context: RunContext
  let transport: RecordingTransport
  let phase: DistillPhase
  let role: RankRole

  init(
    _ configuration: RunConfiguration, on base: any Transport, in folder: URL
  ) throws {
    transport = RecordingTransport(base)
    let plan = try Coordinator.plan(configuration, rankCount: base.size)
    context = try RunContext(
      configuration: configuration, folder: RunFolder(folder.path + "/"), transport: transport,
      shape: plan.shape, reporter: Reporter(), isStopRequested: { false })
    let roles = try #require(try context.splitRoles())
    role = roles.role
    let split = Self.handOver(roles, context)
    phase = DistillPhase(
      context: context, split: split,
      batches: TrainingBatches(
        try PreparedSet(loading: folder.appending(path: "prepared")), context: context,
        texts: nil, firstCounter: 0))
  }

  /// W of all ranks is gone when it returns.
  private static func handOver(_ roles: RoleRanks, _ context: RunContext) -> SplitNetworks {
    let networks = Networks(
      context.configuration.transformer,
      nullTokenCount: context.configuration.model.textTokens, makeParameters: context.parameters)
    networks.configuration.initialize(networks.base.parameters, seed: 1)
    return SplitNetworks(roles, from: networks, context: context)
  }
}

private struct Refusal: Error {}

@Suite struct SplitPhaseTests {
  private func configuration(
    _ layout: SplitRolesTests.Layout, _ change: (inout RunConfiguration) -> Void = { _ in }
  ) -> RunConfiguration {
    TinyRun.configuration {
      layout.apply(to: &$0)
      change(&$0)
    }
  }

  private func onSplitRanks<Result: Sendable>(
    _ configuration: RunConfiguration, ranks: Int,
    _ body: @escaping @Sendable (SplitPhase) throws -> Result
  ) throws -> [Result] {
    try withTemporaryFolder { folder in
      _ = try TinyRun.prepared(in: folder)
      return try InProcessMesh.run(size: ranks) {
        try body(SplitPhase(configuration, on: $0, in: folder))
      }
    }
  }

  @Test(arguments: SplitRolesTests.layouts)
  func `no rank holds a byte of the other role's networks`(
    _ layout: SplitRolesTests.Layout
  ) throws {
    let categories: [MemoryCategory] = [.parameters, .gradients, .optimizer, .ema]
    _ = try onSplitRanks(configuration(layout), ranks: layout.ranks) { split in
      split.context.arena.resetPeaks()
      try split.phase.run(from: 0) { _, _ in }
      let ledger = split.context.arena.ledger
      func peak(_ role: MemoryRole) -> Int {
        categories.reduce(0) { $0 + ledger.peakByteCount(of: Booking(role, $1)) }
      }
      switch split.role {
      case .score:
        #expect(peak(.generator) == 0)
        #expect(peak(.base) > 0 && peak(.fake) > 0)
        #expect(ledger.peakByteCount(of: Booking(.base, .gradients)) == 0)
      case .generator:
        #expect(peak(.base) == 0 && peak(.fake) == 0)
        #expect(peak(.generator) > 0)
      }
    }
  }

  @Test(arguments: [1, 2, 5])
  func `a step sends every sample once, and a generator turn every gradient once`(
    _ ratio: Int
  ) throws {
    for layout in [SplitRolesTests.layouts[0], SplitRolesTests.layouts[5]] {
      let configuration = configuration(layout) {
        $0.distill.criticRatio = ratio
        $0.distill.steps = 6
      }
      let sent = try onSplitRanks(configuration, ranks: layout.ranks) { split in
        split.transport.log.removeAll()
        try split.phase.run(from: 0) { _, _ in }
        // Both sets are smaller than all ranks: in groups of all there are latents alone.
        return ["allToAll", "post"].map { name in
          split.transport.log.entries.filter { $0.name == name && $0.groupSize == layout.ranks }
            .reduce(0) { $0 + $1.sentByteCount }
        }
      }
      let size = try WorkloadSizes(configuration).network
      let latent = 4 * size.outChannels * size.latentFrames * size.latentHeight * size.latentWidth
      let batch = latent * configuration.batch.microbatches * configuration.batch.samples
      let turnCount = (6 + ratio - 1) / ratio
      #expect(sent.reduce(0) { $0 + $1[0] } == 6 * batch)
      #expect(sent.reduce(0) { $0 + $1[1] } == turnCount * batch)
      if turnCount * ratio == 6 {
        let plan = try Coordinator.plan(configuration, rankCount: layout.ranks)
        let distill = try #require(plan.costs.phases.first { $0.name == "distill" })
        #expect(6 * distill.activationByteCountPerStep == (6 + turnCount) * batch)
      }
    }
  }

  /// Rank 0 scores, rank 3 makes samples.
  @Test(arguments: [0, 3])
  func `a rank of either role that fails ends all of them`(_ failing: Int) throws {
    let layout = SplitRolesTests.layouts[4]
    let configuration = configuration(layout)
    // At once, and by itself.
    #expect(throws: Refusal.self) {
      _ = try onSplitRanks(configuration, ranks: 4) { split in
        try split.phase.run(from: 0) { done, _ in
          if done == 2 && split.context.transport.rank == failing { throw Refusal() }
        }
      }
    }
    // At the next agreement, with the same words on all ranks.
    let ends = try onSplitRanks(configuration, ranks: 4) { split -> String in
      do {
        try split.phase.run(from: 0) { done, _ in
          guard done == 2, split.context.transport.rank == failing else { return }
          split.context.attempt { throw JobError(exitCode: .other, "no room left") }
        }
        return "finished"
      } catch let error as JobError {
        return error.message
      }
    }
    #expect(ends == Array(repeating: "no room left", count: 4))
  }

  @Test func `a stop that one rank is asked for stops all after the same step`() throws {
    for asked in [0, 3] {
      try withTemporaryFolder { folder in
        _ = try TinyRun.prepared(in: folder)
        let configuration = configuration(SplitRolesTests.layouts[4])
        let stops = try InProcessMesh.run(size: 4) { transport -> [Int] in
          let plan = try Coordinator.plan(configuration, rankCount: 4)
          let context = try RunContext(
            configuration: configuration, folder: RunFolder(folder.path + "/"),
            transport: transport, shape: plan.shape, reporter: Reporter(),
            isStopRequested: { transport.rank == asked })
          let agreement = try context.agreeOnStep(losses: [])
          return agreement.shouldStop ? [0] : []
        }
        #expect(stops == Array(repeating: [0], count: 4))
      }
    }
  }

  @Test func `auto splits roles only where nothing else keeps within the memory of a rank`() throws
  {
    let configuration = TinyRun.configuration {
      // So large that gathered blocks, which sharding does not make smaller, count for little; one at a time.
      $0.exchange.overlap = .off
      ($0.model.doubleBlocks, $0.model.singleBlocks) = (2, 6)
      ($0.model.heads, $0.model.headWidth) = (2, 32)
    }
    func plan(_ memoryPerRank: Int, _ placement: RunConfiguration.Placement = .auto) throws
      -> RunPlan
    {
      var configuration = configuration
      (configuration.mesh.placement, configuration.mesh.memoryPerRank) = (placement, memoryPerRank)
      return try Coordinator.plan(configuration, rankCount: 2)
    }
    let free = try plan(0)
    #expect(free.shape.generatorRanks == nil)
    #expect(free.candidates.allSatisfy { $0.shape.generatorRanks == nil })
    let split = try plan(0, .split)
    #expect(split.shape.generatorRanks?.count == 1)
    #expect(split.text.contains("score rank 0:") && split.text.contains("generator rank 1:"))
    let counts = try Coordinator.leastByteCounts(of: configuration, rankCount: 2)
    let least = free.candidates.compactMap { counts[$0.shape] }.min() ?? 0
    let tight = try plan(least - 1)
    #expect(tight.candidates.contains { $0.shape.generatorRanks != nil })
    #expect(try plan(least).shape.generatorRanks == nil)
  }
}
