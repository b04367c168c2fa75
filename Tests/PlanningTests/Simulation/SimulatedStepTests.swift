import MeshLayout
import Testing

@testable import Planning

struct SimulatedStepTests {
  private func run(_ change: (inout WorkloadSizes) -> Void = { _ in }) -> SimulatedRun {
    SimulatedRun(Example.sizes(change), machine: MachineModel())
  }

  @Test(arguments: [1, 2, 8, 32])
  func `no layout is faster than all ranks at their rate`(rankCount: Int) {
    let run = run()
    let rate = run.work.machine.productRate(.fp32)
    let least = run.operationCount(microbatchCount: 16) / (Double(rankCount) * rate)
    let layouts = run.layouts(rankCount: rankCount, microbatchCount: 16)
    #expect(!layouts.isEmpty)
    for layout in layouts {
      let step = run.estimate(layout, microbatchCount: 16).step
      #expect(layout.rankCount == rankCount)
      #expect(step.seconds >= least * (1 - 1e-9), "\(layout)")
      #expect(
        step.seconds >= run.lowerBound(layout, microbatchCount: 16) * (1 - 1e-9), "\(layout)")
      let parts = step.compute + step.exposedCommunication + step.bubble
      #expect(abs(parts - step.seconds) <= 1e-9 * step.seconds, "\(layout)")
    }
  }

  @Test func `one rank takes its operations at its rate and the optimizer's bytes`() {
    let run = run { $0.keepsGeneratorAverage = false }
    let estimate = run.estimate(
      Example.layout([:], ranksPerNode: 1), microbatchCount: 16)
    let operations = run.operationCount(microbatchCount: 16)
    // In one step of five the generator is updated, in each the adapter: 28 bytes a parameter.
    let adapterCount = run.work.model.blocks.reduce(0) { $0 + $1.adapterCount }
    let bytes = 28 * (run.work.model.parameterCount / 5 + adapterCount)
    let seconds =
      operations / run.work.machine.productRate(.fp32) + bytes / run.work.machine.memoryBandwidth
    #expect(abs(estimate.step.seconds - seconds) < 1e-9 * seconds)
    #expect(estimate.step.sentBytes == 0 && estimate.step.bubble < 1e-9 * seconds)
  }

  @Test(arguments: [false, true])
  func `microbatches are folded without a change`(overlaps: Bool) {
    let run = run()
    for zeroStage in ZeroStage.allCases {
      let layout = Example.layout(
        [.zero: 2, .sp: 2], zeroStage: zeroStage, overlaps: overlaps, ranksPerNode: 2)
      for (turn, _) in SimulatedTurn.distill(run.sizes) {
        let folded = StepEstimate.turn(run.work, layout, turn, microbatchCount: 9)
        let whole = StepEstimate.turn(
          run.work, layout, turn, microbatchCount: 9, foldsMicrobatches: false)
        for (one, other) in [
          (folded.seconds, whole.seconds), (folded.compute, whole.compute),
          (folded.sentBytes, whole.sentBytes),
          (folded.exposedCommunication, whole.exposedCommunication),
        ] { #expect(abs(one - other) <= 1e-9 * max(one, 1e-9), "\(turn.name), \(layout)") }
      }
    }
  }

  @Test func `overlap never costs time, faster links never either`() {
    var slower = MachineModel()
    slower.bandwidthBetween /= 10
    for zeroStage in [ZeroStage.gradients, .parameters] {
      var layout = Example.layout([.zero: 8, .sp: 2], zeroStage: zeroStage, ranksPerNode: 4)
      let blocking = run().estimate(layout, microbatchCount: 16).seconds
      let slow = SimulatedRun(Example.sizes(), machine: slower)
        .estimate(layout, microbatchCount: 16).seconds
      layout.overlaps = true
      let hidden = run().estimate(layout, microbatchCount: 16).seconds
      #expect(hidden <= blocking && blocking < slow)
    }
  }

  @Test func `sizes agree with the plan's twins of what the worker runs`() throws {
    let sizes = Example.sizes()
    let shape = MeshShape([.zero: 4, .sp: 2])
    let plan = try CostModel.costs(of: sizes, shape: shape)
    let estimate = run { $0 = sizes }.estimate(
      SimulatedLayout(shape: shape, ranksPerNode: 8), microbatchCount: 16)
    for (phase, step) in [(plan.phases[0], estimate.teach), (plan.phases[1], estimate.distill)] {
      let step = try #require(step)
      let updates = Double(phase.updateByteCountPerStep) / 8
      #expect(abs(step.sentUpdates - updates) < 1e-6 * updates, "\(phase.name)")
      let activations = Double(phase.activationByteCountPerStep) / 8
      #expect(abs(step.sentActivations - activations) < 1e-6 * activations, "\(phase.name)")
      let operations = phase.operationsPerStep.max() ?? 0
      let counted = step.compute * MachineModel().productRate(.fp32)
      #expect(abs(counted - operations) < 0.15 * operations, "\(phase.name)")
    }
    #expect(abs(SimulatedModel(sizes).parameterCount - 5_600_000) < 1)
  }

  // MARK: Memory

  @Test(arguments: [1, 2, 8, 64])
  func `state per parameter follows ZeRO`(ranks: Int) {
    let n = Double(ranks)
    func bytes(_ state: StateBytes) -> [Double] {
      ZeroStage.allCases.map {
        state.trained(parameterCount: 1, zeroStage: $0, shardCount: ranks).total
      }
    }
    #expect(bytes(.mixed) == [4 + 12 / n, 2 + 14 / n, 16 / n])
    #expect(bytes(.float32) == [8 + 8 / n, 4 + 12 / n, 16 / n])
    let averaged = StateBytes.float32.trained(
      parameterCount: 1, zeroStage: .gradients, shardCount: ranks, hasAverage: true)
    #expect(averaged.average == 4 / n)
  }

  @Test func `the memory table of W2SVD against DMD2`() {
    // specs/w2svd.md, §4: P = 12.82e9, adapter of rank 64 with 236 M, bytes in 10⁹.
    let (count, adapter) = (12.82e9, 236e6)
    func gigabytes(_ ranks: Int, adapts: Bool) -> Double {
      let shards = (zeroStage: ZeroStage.parameters, shardCount: ranks)
      func trained(_ count: Double) -> Double {
        StateBytes.mixed.trained(
          parameterCount: count, zeroStage: shards.zeroStage, shardCount: shards.shardCount
        ).total
      }
      let base = StateBytes.mixed.frozen(
        parameterCount: count, zeroStage: shards.zeroStage, shardCount: shards.shardCount
      ).total
      return (base + trained(count) + trained(adapts ? adapter : count)) / 1e9
    }
    #expect(abs(gigabytes(1, adapts: false) - 436) < 0.5)
    #expect(abs(gigabytes(1, adapts: true) - 231 - 3.8) < 0.5)
    for (ranks, plain, weak) in [(8, 54.5, 29.3), (16, 27.2, 14.7), (32, 13.6, 7.3)] {
      #expect(abs(gigabytes(ranks, adapts: false) - plain) < 0.06)
      #expect(abs(gigabytes(ranks, adapts: true) - weak) < 0.06)
    }
  }

  @Test func `activations follow tokens, stages and what is recomputed`() {
    let run = run { $0.teachStepCount = 0 }
    func kept(_ layout: SimulatedLayout, recomputes: Bool = true) -> Int {
      var work = run.work
      work.recomputedShare = recomputes ? 1 : 0
      return SimulatedMemory.fullest(
        work, layout, .distilled(hasAdapter: true), hasAverage: true, microbatchCount: 16
      ).accounts.first { $0.role == .generator && $0.category == .activations }?
      .peakByteCount ?? 0
    }
    let hidden = Int(run.work.model.hiddenElementCount) * 4
    #expect(kept(Example.layout([:])) == 16 * hidden)
    #expect(kept(Example.layout([:]), recomputes: false) == 17 * 16 * hidden)
    #expect(kept(Example.layout([.sp: 4])) == 4 * hidden)
    #expect(kept(Example.layout([.tp: 4])) == 4 * hidden)
    #expect(kept(Example.layout([.stages: 4])) == 4 * 4 * hidden)
    #expect(kept(Example.layout([.stages: 4], schedule: .gPipe)) == 16 * 4 * hidden)
    #expect(kept(Example.layout([.stages: 4], schedule: .localBlocks)) == 4 * hidden)
  }

  // MARK: Choice

  @Test func `a layout goes on as many ranks of a node as its bytes allow`() {
    let run = run()
    let layout = Example.layout([.zero: 16], ranksPerNode: 16)
    func ranks(_ memory: Double) -> Int? {
      run.placements(layout, byteCount: 100, memoryPerNode: memory).first?.ranksPerNode
    }
    #expect([1_600, 1_599, 400, 399, 100].map { ranks($0) } == [16, 8, 4, 2, 1])
    #expect(ranks(99) == nil)
    #expect(
      run.placements(layout, byteCount: 100, memoryPerNode: 1_000).map(\.ranksPerNode)
        == [8, 4, 2, 1])
  }

  @Test func `the best layouts are the best of all that fit`() {
    let run = run()
    let candidates = run.candidates(rankCount: 16, microbatchCount: 16)
    let memory = 2e8
    let best = run.best(
      candidates, microbatchCount: 16, memoryPerNode: memory, limit: 3, tolerance: 0)
    let all = candidates.flatMap {
      run.placements($0.layout, byteCount: $0.byteCount, memoryPerNode: memory)
    }.map { run.estimate($0, microbatchCount: 16).nodeSeconds }.sorted()
    #expect(best.map(\.nodeSeconds) == Array(all.prefix(3)))
  }

  @Test func `what is fixed stays as it is, also a degree that is not looked at else`() {
    let run = run()
    func layouts(_ fixed: [Axis: Int], _ zeroStage: ZeroStage? = nil) -> [SimulatedLayout] {
      var rules = LayoutRules()
      (rules.fixed, rules.fixedZeroStage) = (fixed, zeroStage)
      return run.layouts(rankCount: 24, microbatchCount: 48, rules)
    }
    let cases: [[Axis: Int]] = [
      [.stages: 2], [.stages: 3], [.tp: 4], [.ring: 3], [.sp: 4], [.zero: 8], [.dp: 3], [.dp: 4],
      [.stages: 1, .tp: 1, .dp: 1, .ring: 1, .sp: 1], [.stages: 2, .dp: 3, .tp: 2],
    ]
    for fixed in cases {
      let found = layouts(fixed)
      #expect(!found.isEmpty, "\(fixed)")
      #expect(found.allSatisfy { $0.rankCount == 24 })
      #expect(
        found.allSatisfy { layout in fixed.allSatisfy { layout.shape[$0.key] == $0.value } },
        "\(fixed)")
    }
    for fixed: [Axis: Int] in [[.zero: 7], [.dp: 5], [.tp: 3], [.zero: 4, .dp: 4], [.stages: 24]] {
      #expect(layouts(fixed).isEmpty, "\(fixed)")
    }
    let all = layouts([:])
    for stage in ZeroStage.allCases {
      // A replica on one rank has nothing to share, whatever the stage.
      #expect(
        Set(layouts([:], stage))
          == Set(all.filter { $0.shape[.dp] == 24 || $0.zeroStage == stage }))
    }
  }

  @Test func `more memory never gives a dearer plan`() {
    let study = ScalingStudy(run(), rankCounts: [8, 32], nodeMemories: [5e7, 2e8, 1e9])
    for kind in ScalingCurve.Kind.allCases {
      let curves = study.curves(kind)
      #expect(curves.count == 3)
      for (less, more) in zip(curves, curves.dropFirst()) {
        for point in less.points {
          let other = more.points.first { $0.rankCount == point.rankCount }
          let nodeSeconds = other.map { $0.step.seconds * Double($0.nodeCount) } ?? .infinity
          // A hundredth decides for the simpler layout, not for the better one.
          #expect(nodeSeconds <= 1.02 * point.step.seconds * Double(point.nodeCount))
        }
      }
      #expect(curves[2].points.first?.efficiency == 1)
    }
    #expect(study.microbatchCount(.weak, rankCount: 32) == 4)
    #expect(study.microbatchCount(.strong, rankCount: 32) == 16)
  }

  @Test func `numbers of a machine are read and held against their bounds`() throws {
    var machine = MachineModel()
    for option in MachineOption.all {
      let value = option.isWhole ? 3 : (option.range.lowerBound + option.range.upperBound) / 2
      #expect(option.set(&machine, value) == nil)
      #expect(option.value(of: machine) == value)
      #expect(option.set(&machine, option.range.upperBound * 2) != nil)
      #expect(option.set(&machine, .nan) != nil)
      #expect(!option.effect.isEmpty && !option.origin.isEmpty && !option.unit.isEmpty)
    }
    let ranks = try #require(MachineOption.all.first { $0.key == "ranksPerNode" })
    #expect(ranks.set(&machine, 2.5) != nil)
    #expect(Set(MachineOption.all.map(\.key)).count == 13)
  }
}
