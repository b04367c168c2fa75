import Autodiff
import Diffusion
import MeshLayout
import Models
import Planning
import ProcessMesh
import Tensors
import Testing

@testable import Training

/// The peaks of one rank's ledger after a phase.
private struct MeasuredPhase: Sendable {
  let entries: [MemoryLedger.Entry]
  let total: Int
  /// What the rank sent to those it shares tokens with.
  let activationByteCount: Int
  init(_ context: RunContext, _ log: TrafficLog) {
    entries = context.arena.ledger.entries
    total = context.arena.ledger.totalPeakByteCount
    // All other operations are of the whole mesh.
    activationByteCount = log.entries.filter { $0.groupSize < context.shape.rankCount }
      .reduce(0) { $0 + $1.sentByteCount }
    log.removeAll()
  }

  func peak(_ role: PlannedRole, _ category: PlannedCategory) -> Int {
    entries.first {
      $0.role.rawValue == role.rawValue && $0.category.rawValue == category.rawValue
    }?.peakByteCount ?? 0
  }
}

extension RunOnThreads {
  /// Runs teach and distill as the main job does; third, where roles are split, what their end takes.
  fileprivate func measure() throws -> [MeasuredPhase] {
    var networks: Networks? = makeNetworks()
    func teach() throws {
      guard let networks else { return }
      try TeachPhase(context: context, networks: networks, batches: batches)
        .run(from: 0) { _, _ in }
    }
    func distill() throws -> SplitNetworks? {
      if let roles = try context.splitRoles() {
        let split = try #require(
          networks.take().map { SplitNetworks(roles, from: $0, context: context) })
        try DistillPhase(context: context, split: split, batches: batches).run(from: 0) { _, _ in }
        return split
      }
      guard let networks else { return nil }
      try distillTogether(networks)
      return nil
    }
    try teach()
    let taught = MeasuredPhase(context, log)
    context.arena.resetPeaks()
    let split = try distill()
    var phases = [taught, MeasuredPhase(context, log)]
    if let split {
      context.arena.resetPeaks()
      _ = try split.joined(context)
      phases.append(MeasuredPhase(context, log))
    }
    return phases
  }
}

/// What all ranks sent of some kinds in each step of a phase, before coding.
private func byteCounts(
  _ kinds: [String], of phase: String, in metrics: [[String: Any]]
) -> [Int] {
  metrics.compactMap { line in
    guard line["phase"] as? String == phase else { return nil }
    let counts = kinds.compactMap { line["\($0)_raw_bytes"] as? Int }
    return counts.count == kinds.count ? counts.reduce(0, +) : nil
  }
}

@Suite struct PlannedMemoryTests {
  @Test(
    arguments: PlannedCase.all + PlannedCase.vchitect + PlannedCase.split
      + PlannedCase.discriminated)
  func `the plan tells what the ledger books`(_ planned: PlannedCase) throws {
    let configuration = planned.configuration
    let plan = try Coordinator.plan(configuration, rankCount: planned.rankCount)
    let (measured, metrics) = try RunOnThreads.start(
      configuration, shape: plan.shape, keepsPackedWeights: plan.keepsPackedWeights
    ) { try $0.measure() }
    let sentByStep = byteCounts(["gradients", "parameters"], of: "teach", in: metrics)
    let activationsByStep = byteCounts(["activations"], of: "teach", in: metrics)
    let distilled = byteCounts(["activations"], of: "distill", in: metrics)
    for rank in 0..<planned.rankCount {
      for (phase, found) in zip(plan.costs.phases, measured[rank].prefix(2)) {
        let expected = phase.memory[rank]
        for role in PlannedRole.allCases {
          for category in [.parameters, .gradients, .optimizer, .ema] as [PlannedCategory] {
            #expect(
              expected.peakByteCount(role, category) == found.peak(role, category),
              "\(phase.name), rank \(rank), \(role.rawValue) \(category.rawValue)")
          }
        }
        // Contract 4.5: lifetimes of temporaries are the compiler's, the rest is exact.
        #expect(
          abs(expected.totalPeakByteCount - found.total) * 20 <= found.total,
          "\(phase.name), rank \(rank): planned \(expected), booked \(found)")
      }
    }
    // Where roles were split all ranks get all networks back, in no more memory than is planned for what
    // they do with them.
    for (rank, phases) in measured.enumerated() {
      guard let joined = phases.dropFirst(2).first else { continue }
      let planned = plan.costs.phases[2].memory[rank].totalPeakByteCount
      // Partial sums of the exchange are left from training, hence the same 5 %.
      #expect(joined.total * 20 <= planned * 21, "rank \(rank) joins in \(joined)")
    }
    // Every teach step is alike; the depth of rollouts makes those of distill differ.
    let teach = plan.costs.phases[0]
    #expect(sentByStep == Array(repeating: teach.updateByteCountPerStep, count: teach.stepCount))
    if plan.shape[.stages] > 1 {
      #expect(
        activationsByStep
          == Array(repeating: teach.activationByteCountPerStep, count: teach.stepCount))
    }
    // Rollouts from data are all as deep, and generator turns come as often as the mean says.
    let distill = plan.costs.phases[1]
    if configuration.distill.rollout == .data, plan.shape.generatorRanks == nil,
      distill.stepCount % configuration.distill.criticRatio == 0
    {
      let (sent, planned) = (
        distilled.reduce(0, +), distill.stepCount * distill.activationByteCountPerStep
      )
      // The mean is rounded to a whole number.
      #expect(abs(sent - planned) <= distill.stepCount, "\(sent) sent, \(planned) planned")
      #expect((sent > 0) == (plan.shape.sequenceDegree * plan.shape[.stages] > 1))
    }
    let degrees = [plan.shape[.ring], plan.shape[.sp], plan.shape[.tp]]
    guard degrees.contains(where: { $0 > 1 }), !degrees.contains(planned.rankCount),
      plan.shape[.dp] == 1, plan.shape[.stages] == 1
    else { return }
    let sent = measured.map { $0.map(\.activationByteCount) }
    #expect(sent.reduce(0) { $0 + $1[0] } == teach.stepCount * teach.activationByteCountPerStep)
    #expect(sent.allSatisfy { $0[1] > 0 })
  }
}
