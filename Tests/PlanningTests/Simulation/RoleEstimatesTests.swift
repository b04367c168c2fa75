import MeshLayout
import Testing

@testable import Planning

/// Split roles against closed forms: blocks of a second there and two back (one with frozen weights), 4 of them.
struct RoleEstimatesTests {
  private func run(
    criticRatio: Int, latency: Double = 0, _ change: (inout WorkloadSizes) -> Void = { _ in }
  ) -> SimulatedRun {
    let sizes = Example.sizes {
      ($0.simulatesRollout, $0.isGuided, $0.criticRatio) = (false, false, criticRatio)
      $0.recomputedShare = 0
      change(&$0)
    }
    var run = SimulatedRun(sizes, machine: Example.machine)
    run.work.model = Example.model(blockCount: 4)
    run.work.machine.latencyInside = latency
    return run
  }

  private func layout(_ rankCount: Int, generatorRanks: Int) -> SimulatedLayout {
    var shape = MeshShape([.zero: rankCount])
    shape.generatorRanks = GeneratorRanks(generatorRanks)
    return SimulatedLayout(shape: shape, ranksPerNode: 64)
  }

  private let forward = 4.0
  private let back = 8.0
  /// Fake and real, and the critic's two ways.
  private let scores = 8.0
  private let critic = 8.0

  @Test(arguments: 1...5, 1...6)
  func `a cycle is the longer role's turns, and the first gradient is waited for`(
    criticRatio: Int, n: Int
  ) throws {
    let run = run(criticRatio: criticRatio)
    let estimate = run.estimate(layout(2, generatorRanks: 1), microbatchCount: n)
    let roles = try #require(estimate.roles)
    let count = Double(n)
    // The first way back begins with the first score; later ones are there in time.
    let training = scores + back + (count - 1) * (forward + back)
    #expect(roles.timeline.training == training)
    #expect(roles.timeline.samples == count * forward)
    #expect(roles.timeline.scores == count * scores && roles.timeline.criticTurn == count * critic)
    let cycle =
      max(training + count * forward, count * (scores + critic))
      + Double(criticRatio - 1) * count * max(forward, critic)
    #expect(abs(roles.seconds - cycle / Double(criticRatio)) < 1e-12 * cycle)
    #expect(estimate.seconds == roles.seconds && roles.sampleSeconds == 0)
    #expect(estimate.seconds >= run.lowerBound(estimate.layout, microbatchCount: n))
    for (step, computed) in [
      (roles.score, count * (scores / Double(criticRatio) + critic)),
      (roles.generator, count * ((forward + back) / Double(criticRatio) + forward)),
    ] {
      // Sums of thirds and fifths.
      #expect(abs(step.compute - computed) < 1e-12 * computed)
      #expect(abs(step.compute + step.bubble - roles.seconds) < 1e-12 * roles.seconds)
    }
    #expect(estimate.step.compute == max(roles.score.compute, roles.generator.compute))
  }

  @Test func `a generator rank whose microbatches are scored last waits longest`() throws {
    // 12 microbatches: one rank scores all, each of three generator ranks has 4 neighbors.
    let roles = try #require(
      run(criticRatio: 1).estimate(layout(4, generatorRanks: 3), microbatchCount: 12).roles)
    // The ninth score is there after 72 s; then a way back, and three times both ways.
    #expect(roles.timeline.training == 9 * scores + back + 3 * (forward + back))
    // Three ranks score, each 4 of them; one generator rank has all and waits for the first alone.
    let other = try #require(
      run(criticRatio: 1).estimate(layout(4, generatorRanks: 1), microbatchCount: 12).roles)
    #expect(other.timeline.training == scores + back + 11 * (forward + back))
    #expect(other.timeline.scores == 4 * scores)
  }

  @Test func `samples travel at the end of a step, gradients as soon as they are there`() throws {
    let roles = try #require(
      run(criticRatio: 2, latency: 0.5).estimate(layout(2, generatorRanks: 1), microbatchCount: 3)
        .roles)
    #expect(roles.sampleSeconds == 3 * 0.5)
    #expect(roles.timeline.training == scores + 0.5 + back + 2 * (forward + back))
    #expect(roles.seconds == roles.timeline.step + 1.5)
  }

  @Test func `each role's memory is its own networks, all ranks teach`() {
    func accounts(_ layout: SimulatedLayout, teaches: Bool) -> [PlannedRole] {
      let run = run(criticRatio: 2) { $0.teachStepCount = teaches ? 3 : 0 }
      return run.memory(layout, microbatchCount: 4).accounts.map(\.role)
    }
    // A generator with its optimizer is more than a frozen W with adapters.
    #expect(Set(accounts(layout(2, generatorRanks: 1), teaches: false)) == [.generator])
    // Eight generator ranks share what W is whole of.
    var shape = MeshShape([.zero: 10])
    shape.generatorRanks = GeneratorRanks(MeshShape([.zero: 8], zeroStage: .parameters))
    let shared = SimulatedLayout(shape: shape, ranksPerNode: 64)
    #expect(accounts(shared, teaches: false).contains(.fake))
    #expect(Set(accounts(shared, teaches: true)) == [.base])
  }

  // MARK: Search

  private func layouts(
    _ rankCount: Int, microbatches: Int = 16, _ change: (inout LayoutRules) -> Void = { _ in }
  ) -> [SimulatedLayout] {
    var rules = LayoutRules()
    change(&rules)
    return SimulatedRun(Example.sizes(), machine: MachineModel())
      .layouts(rankCount: rankCount, microbatchCount: microbatches, rules)
  }

  @Test func `both placements are looked at, or the one that must be`() {
    let all = layouts(8)
    #expect(Set(all).count == all.count)
    let split = all.filter { $0.shape.generatorRanks != nil }
    #expect(!split.isEmpty && split.count < all.count)
    #expect(Set(layouts(8) { $0.colocatesRoles = false }) == Set(split))
    #expect(Set(layouts(8) { $0.splitsRoles = false }) == Set(all).subtracting(split))
    #expect(layouts(1).allSatisfy { $0.shape.generatorRanks == nil })
  }

  @Test func `the generator's ranks have the axes of all, or those that are given`() {
    let split = layouts(8) { $0.colocatesRoles = false }
    for layout in split {
      let generator = layout.layout(of: .generator)
      for axis in Axis.allCases where axis != .zero {
        #expect(generator.shape[axis] == layout.shape[axis], "\(layout)")
      }
      #expect(
        generator.rankCount + layout.layout(of: .score).rankCount == 8, "\(layout)")
    }
    let cut = layouts(8) {
      $0.colocatesRoles = false
      ($0.generatorDegrees, $0.generatorRankCount) = ([.tp: 2, .stages: 1], 4)
    }
    #expect(!cut.isEmpty)
    for layout in cut {
      let generator = layout.layout(of: .generator)
      #expect(generator.rankCount == 4 && generator.shape[.tp] == 2, "\(layout)")
      #expect(generator.shape[.stages] == 1 && generator.zeroStage == .parameters, "\(layout)")
    }
    #expect(layouts(8) { $0.generatorRankCount = 8 }.allSatisfy { $0.shape.generatorRanks == nil })
  }

  @Test func `as many ranks have the generator as the plan's timeline wants`() throws {
    let sizes = Example.sizes()
    let found = layouts(8) {
      $0.colocatesRoles = false
      $0.fixed = [.dp: 1, .ring: 1, .sp: 1, .tp: 1, .stages: 1]
      $0.fixedZeroStage = .optimizer
    }
    var search = MeshSearch(rankCount: 8, microbatchCount: 16, headCount: 8, stage: .optimizer)
    search.splitsRoles = true
    let steps = try search.splitShapes.map { shape in
      let roles = try CostModel.costs(of: sizes, shape: shape).phases.compactMap(\.roles).first
      return (shape.generatorRanks?.count, try #require(roles).step)
    }
    let best = try #require(steps.min { $0.1 < $1.1 })
    #expect(found.count == 1 && found[0].shape.generatorRanks?.count == best.0)
  }

  @Test func `layouts on paper are looked at only where they are asked for`() {
    func schedules(_ change: (inout LayoutRules) -> Void) -> Set<PipelineSchedule> {
      Set(layouts(8, change).filter { $0.stageCount > 1 }.map(\.schedule))
    }
    #expect(schedules { _ in } == [.oneForwardOneBackward, .gPipe])
    #expect(
      schedules { $0.interleaves = true } == [.oneForwardOneBackward, .gPipe, .interleaved(2)])
    #expect(schedules { $0.usesLocalBlocks = true } == [.localBlocks])
    #expect(
      layouts(8) { $0.allows = { layout, _ in layout.shape[.tp] == 2 } }
        .allSatisfy { $0.shape[.tp] == 2 })
  }
}
