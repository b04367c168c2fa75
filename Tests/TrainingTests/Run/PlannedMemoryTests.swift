import Autodiff
import Diffusion
import MeshLayout
import Models
import Planning
import ProcessMesh
import Tensors
import Testing
import VideoData

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
  /// Runs teach and distill as the main job does, then samples as an evaluation does.
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
    var split = try distill()
    let distilled = MeasuredPhase(context, log)
    context.arena.resetPeaks()
    if let joined = try split.take()?.joined(context) { networks = joined }
    try sample(networks)
    return [taught, distilled, MeasuredPhase(context, log)]
  }

  /// Two batches of an evaluation on each data-parallel rank, or as many as it has, in two steps.
  private func sample(_ networks: Networks?) throws {
    let configuration = context.configuration
    let networks = try #require(networks)
    let prepared = try TinyRun.prepared(of: configuration)
    let generator = ClipGenerator(
      context: context, teacher: networks.base, student: networks.generator ?? networks.base,
      codec: prepared.codec, latentShape: prepared.latentShape)
    let count = min(
      configuration.evaluate.samples,
      context.shape.dataParallelDegree * context.shape[.stages] * configuration.evaluate.batch)
    let batches = stride(from: 0, to: count, by: configuration.evaluate.batch).map {
      Array($0..<min($0 + configuration.evaluate.batch, count))
    }
    for role in [NamedSampler.Role.teacher, .student] {
      let sampler = NamedSampler(role, steps: 2, rule: .renoise, shift: 1)
      _ = try context.makeClips(batches) { numbers in
        generator.latents(numbers, sampler: sampler, conditions: numbers.map { _ in Condition() })
      } finish: { _, _, _ in
      }
    }
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
      for (phase, found) in zip(plan.costs.phases, measured[rank]) {
        let expected = phase.memory[rank]
        // What sampling holds of these is what training left.
        for role in PlannedRole.allCases where phase.stepCount > 0 {
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
