// A limit on the memory of a rank's process: what it takes beside tensors in use is given back before it is passed.

import Autodiff
import MeshLayout
import Models
import Planning
import Tensors
import Testing

@testable import Training

@Suite struct MemoryLimitTests {
  private struct Run: Sendable {
    let weights: [Float]
    /// Of the arena, after teach and after distill.
    let reservedByteCounts: [Int]
  }

  private func run(_ configuration: RunConfiguration, _ plan: RunPlan) throws -> [Run] {
    try RunOnThreads.start(
      configuration, shape: plan.shape, arenaByteLimit: plan.arenaByteLimit
    ) { rank in
      let (context, batches, networks) = (rank.context, rank.batches, rank.makeNetworks())
      try TeachPhase(context: context, networks: networks, batches: batches)
        .run(from: 0) { _, _ in }
      let taught = context.arena.reservedByteCount
      try DistillPhase(context: context, networks: networks, batches: batches)
        .run(from: 0) { _, _ in }
      let sets: [ParameterSet<Float>?] = [
        networks.base.parameters, networks.generator?.parameters, networks.adapter?.parameters,
      ]
      return Run(
        weights: sets.compactMap(\.self).flatMap(\.wholeVector),
        reservedByteCounts: [taught, context.arena.reservedByteCount])
    }.results
  }

  @Test(arguments: [1, 2])
  func `a run keeps within the limit that tensors leave, with the same bits`(ranks: Int) throws {
    let free = PlannedCase("long") {
      $0.compute.precision = .fp32
      ($0.data.size, $0.data.shortSide) = (64, 64)
      $0.model.recompute = true
      $0.mesh.zeroStage = .fixed(1)
    }.configuration
    let unlimited = try Coordinator.plan(free, rankCount: ranks)
    #expect(unlimited.arenaByteLimit == nil)
    let process = try #require(unlimited.processes.max { $0.byteCount < $1.byteCount })
    // What tensors take at their fullest, and a twentieth, which lifetimes of temporaries may differ by.
    let tensors = unlimited.costs.peakByteCountPerRank * 21 / 20
    var limited = free
    limited.mesh.memoryPerRank = process.besidePoolByteCount + tensors
    #expect(limited.mesh.memoryPerRank < process.byteCount)
    let plan = try Coordinator.plan(limited, rankCount: ranks)
    #expect(plan.shape == unlimited.shape && plan.fits && plan.arenaByteLimit == tensors)
    #expect(plan.processByteCountPerRank == limited.mesh.memoryPerRank)

    let (whole, kept) = (try run(free, unlimited), try run(limited, plan))
    #expect(whole.contains { $0.reservedByteCounts.contains { $0 > tensors } })
    #expect(kept.allSatisfy { $0.reservedByteCounts.allSatisfy { $0 <= tensors } })
    // Compared outside of the expectation: a failure would print every weight.
    let areSame = kept.map(\.weights) == whole.map(\.weights)
    #expect(areSame)

    // Less than what tensors take is refused.
    limited.mesh.memoryPerRank = process.besidePoolByteCount + tensors * 20 / 21 - 1
    let short = try Coordinator.plan(limited, rankCount: ranks)
    #expect(!short.fits && short.problem != nil || short.shape != plan.shape)
  }
}

extension Coordinator {
  /// What a process takes at least in the layouts that are looked at when memory is short: tensors, and what is beside them.
  static func leastByteCounts(
    of configuration: RunConfiguration, rankCount: Int
  ) throws -> [MeshShape: Int] {
    var tight = configuration
    tight.mesh.memoryPerRank = 1
    let candidates = try plan(tight, rankCount: rankCount).candidates
    return Dictionary(
      candidates.map { ($0.shape, $0.processByteCountPerRank) }, uniquingKeysWith: min)
  }
}
