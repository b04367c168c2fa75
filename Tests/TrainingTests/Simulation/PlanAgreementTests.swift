// What ranks send in a simulated step against what the plan's twins count, for the layouts that the worker runs.

import MeshLayout
import Models
import Planning
import Testing

@testable import Training

/// A layout of which tokens, microbatches and blocks divide evenly.
private struct Case: Sendable, CustomTestStringConvertible {
  let shape: MeshShape
  var testDescription: String { "\(shape)" }

  init(
    _ degrees: [Axis: Int], _ stage: ZeroStage = .optimizer,
    generator: (degrees: [Axis: Int], stage: ZeroStage)? = nil
  ) {
    var shape = MeshShape(degrees, zeroStage: stage)
    shape.generatorRanks = generator.map {
      GeneratorRanks(MeshShape($0.degrees, zeroStage: $0.stage))
    }
    self.shape = shape
  }

  private var sets: [MeshShape] {
    [shape] + (shape.generatorRanks.map { [$0.shape] } ?? [])
  }

  /// In a critic turn the input of the first block wants no gradient, so cut weights sum none: a gather of many.
  var activationTolerance: Double { sets.contains { $0[.tp] > 1 } ? 0.015 : 1e-6 }
  /// At stage 3 the plan counts padding of units, what an owner keeps of large tensors that are cut, and which of the blocks,
  /// of W and of adapters, stay in memory from turn to turn: all the less the more blocks a stage has, 1 to 4 here.
  var updateTolerance: Double {
    guard sets.contains(where: { $0.zeroStage == .parameters }) else { return 1e-6 }
    return sets.contains { $0[.stages] == 2 } ? 0.14 : 0.075
  }

  static let colocated = [
    Case([.zero: 4]), Case([.dp: 2]), Case([.dp: 2, .zero: 2], .gradients),
    Case([.zero: 2, .sp: 2], .gradients), Case([.zero: 4], .parameters),
    Case([.sp: 4], .parameters), Case([.dp: 2, .ring: 2], .parameters),
    Case([.tp: 2], .parameters), Case([.zero: 2, .tp: 4], .parameters),
    Case([.ring: 2, .sp: 2, .tp: 2], .parameters), Case([.stages: 2], .parameters),
    Case([.stages: 2, .zero: 2], .parameters), Case([.stages: 4, .sp: 2], .parameters),
    Case([.stages: 2, .dp: 2, .tp: 2], .parameters),
  ]
  static let split = [
    Case([.zero: 2], generator: ([:], .optimizer)),
    Case([.zero: 4], generator: ([.zero: 2], .optimizer)),
    Case([.zero: 4], .gradients, generator: ([.dp: 2], .optimizer)),
    Case([.zero: 2, .sp: 2], generator: ([.sp: 2], .optimizer)),
    Case([.zero: 4], generator: ([.ring: 2], .gradients)),
    Case([.zero: 4], .parameters, generator: ([.zero: 2], .parameters)),
    Case([.zero: 4], generator: ([.tp: 2], .parameters)),
    Case([.zero: 4], generator: ([.stages: 2], .parameters)),
    Case([.zero: 2, .stages: 2], .parameters, generator: ([.stages: 2], .parameters)),
    Case([.zero: 2, .stages: 2], .parameters, generator: ([.dp: 2], .optimizer)),
  ]
}

struct PlanAgreementTests {
  private func sizes(
    _ architecture: Architecture, recomputes: Bool
  ) throws -> WorkloadSizes {
    try WorkloadSizes(
      PlannedCase("simulated") {
        $0.model.architecture = architecture
        ($0.model.heads, $0.model.doubleBlocks) = (8, architecture == .vchitect ? 4 : 2)
        $0.model.textTokens = 8
        $0.model.recompute = recomputes
        ($0.data.size, $0.data.shortSide) = (64, 64)
        ($0.batch.microbatches, $0.distill.generatorSteps) = (4, 3)
      }.configuration)
  }

  /// Bytes that all ranks send in a step, in the mean.
  private struct Sent {
    var updates = 0.0
    var activations = 0.0

    mutating func add(_ run: TurnProgram.Run, ranksOfStage: Int, share: Double = 1) {
      for sent in run.sent {
        updates += share * Double(ranksOfStage) * sent.updates
        activations += share * Double(ranksOfStage) * (sent.activations + sent.stages)
      }
    }
  }

  private func run(
    _ run: SimulatedRun, _ layout: SimulatedLayout, _ turn: SimulatedTurn
  ) -> TurnProgram.Run {
    TurnProgram(
      run.work, layout, turn,
      microbatchCount: run.microbatchCount(layout, of: run.sizes.microbatchCount)
    ).run()
  }

  private func teach(_ simulated: SimulatedRun, _ layout: SimulatedLayout) -> Sent {
    var sent = Sent()
    let all = layout.withoutRoles
    sent.add(run(simulated, all, .teach), ranksOfStage: all.rankCount / all.stageCount)
    return sent
  }

  private func distill(_ simulated: SimulatedRun, _ layout: SimulatedLayout) throws -> Sent {
    let sizes = simulated.sizes
    var sent = Sent()
    guard layout.shape.generatorRanks != nil else {
      for (turn, share) in SimulatedTurn.distill(sizes) {
        sent.add(
          run(simulated, layout, turn), ranksOfStage: layout.rankCount / layout.stageCount,
          share: share)
      }
      return sent
    }
    let turns: [(RankRole, SimulatedTurn, Double)] = [
      (.score, .scores(sizes), 1 / Double(sizes.criticRatio)), (.score, .criticTurn(sizes), 1),
      (.generator, .training(sizes), 1 / Double(sizes.criticRatio)),
      (.generator, .samples(sizes), 1),
    ]
    for (role, turn, share) in turns {
      let set = layout.layout(of: role)
      sent.add(
        run(simulated, set, turn), ranksOfStage: set.rankCount / set.stageCount, share: share)
    }
    let roles = try #require(
      simulated.estimate(layout, microbatchCount: sizes.microbatchCount).roles)
    sent.activations +=
      Double(layout.layout(of: .score).rankCount) * roles.score.sentLatents
      + Double(layout.layout(of: .generator).rankCount) * roles.generator.sentLatents
    return sent
  }

  @Test(arguments: Architecture.allCases, Case.colocated + Case.split)
  fileprivate func `ranks send what the plan counts`(
    architecture: Architecture, layout: Case
  ) throws {
    for recomputes in [false, true] {
      let sizes = try sizes(architecture, recomputes: recomputes)
      let costs = try CostModel.costs(of: sizes, shape: layout.shape)
      let simulated = SimulatedRun(sizes, machine: MachineModel())
      let placed = SimulatedLayout(shape: layout.shape, overlaps: true, ranksPerNode: 16)
      let phases = [
        (costs.phases[0], teach(simulated, placed)),
        (costs.phases[1], try distill(simulated, placed)),
      ]
      for (phase, sent) in phases {
        let (updates, activations) = (
          Double(phase.updateByteCountPerStep), Double(phase.activationByteCountPerStep)
        )
        let what = "\(phase.name), recomputed \(recomputes)"
        let most = layout.activationTolerance * activations
        #expect(abs(sent.activations - activations) <= most, "\(what)")
        #expect(abs(sent.updates - updates) <= layout.updateTolerance * updates, "\(what)")
      }
    }
  }
}
