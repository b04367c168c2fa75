import MeshLayout
import Testing

@testable import Planning

struct MeshSearchRolesTests {
  private func search(
    _ ranks: Int, microbatches: Int = 8, stage: ZeroStage? = .optimizer,
    _ change: (inout MeshSearch) -> Void = { _ in }
  ) -> MeshSearch {
    var search = MeshSearch(
      rankCount: ranks, microbatchCount: microbatches, headCount: 6, stage: stage)
    search.splitsRoles = true
    change(&search)
    return search
  }

  @Test func `both roles have ranks, and any number of them where microbatches go round`() {
    for ranks in 2...8 {
      let shapes = search(ranks).shapes
      #expect(shapes.map { $0.generatorRanks?.count } == Array(1..<ranks))
      #expect(shapes.allSatisfy { $0[.zero] == ranks && $0[.sp] == 1 })
    }
    // Rounds of 3 ranks do not divide 8 microbatches.
    #expect(search(4, stage: .gradients).shapes.map { $0.generatorRanks?.count } == [2])
    #expect(search(4) { $0.generatorRankCount = 3 }.shapes.count == 1)
    let mixed = search(4) { $0.generatorStage = .parameters }.shapes
    // One rank has nobody to shard with.
    #expect(mixed.compactMap(\.generatorRanks?.zeroStage) == [.optimizer, .parameters])
    #expect(mixed.map(\.zeroStage) == [.optimizer, .optimizer])
  }

  /// Every combination of degrees of 6 and 8 ranks, stages and placements.
  @Test(arguments: [6, 8], [4, 8])
  func `a layout is allowed where a search for its degrees finds it`(
    ranks: Int, microbatches: Int
  ) {
    let divisors = (1...ranks).filter { ranks % $0 == 0 }
    let stages = ZeroStage.allCases
    for isCanonical in [false, true] {
      var plain = MeshSearch(
        rankCount: ranks, microbatchCount: microbatches, headCount: 4, mlpWidth: 64, blockCount: 3)
      (plain.hasCanonicalSums, plain.tellsNearest) = (isCanonical, false)
      var allowedCount = 0
      for dp in divisors {
        for ring in divisors {
          for sp in divisors {
            for tp in divisors {
              for depth in divisors where ranks % (dp * ring * sp * tp * depth) == 0 {
                for stage in stages {
                  var search = plain
                  (search.dp, search.ring, search.sp, search.tp) = (dp, ring, sp, tp)
                  (search.stages, search.stage) = (depth, stage)
                  let zero = ranks / (dp * ring * sp * tp * depth)
                  search.zero = zero
                  let shape = MeshShape(
                    [.dp: dp, .zero: zero, .ring: ring, .sp: sp, .tp: tp, .stages: depth],
                    zeroStage: stage)
                  let isAllowed = plain.allows(shape)
                  #expect(isAllowed == search.shapes.contains(shape), "\(shape)")
                  if isAllowed { allowedCount += 1 }
                  search.splitsRoles = true
                  for count in 1..<ranks {
                    search.generatorRankCount = count
                    var split = shape
                    split.generatorRanks = search.splitShapes.first?.generatorRanks
                    if split.generatorRanks != nil {
                      #expect(plain.allows(split), "\(split)")
                    } else {
                      // The same axes for the generator's ranks do not do.
                      var generator = shape
                      generator[.zero] = max(1, count / (ranks / zero))
                      split.generatorRanks = GeneratorRanks(generator)
                      if generator.rankCount == count {
                        #expect(!plain.allows(split), "\(split)")
                      }
                    }
                  }
                }
              }
            }
          }
        }
      }
      #expect(allowedCount > 4)
    }
  }

  @Test func `each set is a mesh of its own`() {
    // The score ranks have the axes of all ranks, and the generator's those, or others.
    let same = search(8) {
      $0.sp = 2
      $0.dp = 2
    }.shapes
    #expect(same.map { $0.generatorRanks?.shape } == [MeshShape([.dp: 2, .sp: 2])])
    #expect(same.allSatisfy { $0[.dp] == 2 && $0[.sp] == 2 && $0[.zero] == 2 })
    let other = search(8, stage: .optimizer) {
      $0.generatorRankCount = 4
      $0.generatorDegrees = [.tp: 2, .ring: 2]
    }.shapes
    #expect(other.map(\.axes) == ["zero 8"])
    #expect(
      other.compactMap(\.generatorRanks?.shape) == [
        MeshShape([.ring: 2, .tp: 2], zeroStage: .parameters)
      ])
    let staged = search(8, stage: nil) {
      $0.generatorRankCount = 4
      $0.stages = 2
      $0.generatorDegrees = [.stages: 4]
      $0.blockCount = 4
    }.shapes
    #expect(staged.map(\.axes) == ["stages 2 × zero 4"])
    #expect(
      staged.compactMap(\.generatorRanks?.shape) == [
        MeshShape([.stages: 4], zeroStage: .parameters)
      ])
    // Nobody shares tokens who was not asked to.
    #expect(search(8).shapes.allSatisfy { $0.sequenceDegree == 1 })
  }

  @Test func `what is illegal names the rule and what is legal`() {
    #expect(search(1).problems.map(\.key) == ["mesh.placement"])
    let staged = search(4, stage: nil) {
      $0.stages = 4
      $0.generatorRankCount = 2
    }.problems
    #expect(staged.map(\.key) == ["mesh.stages", "mesh.stages"])
    // Two sets of four ranks are eight.
    let small = search(4) {
      $0.sp = 2
      $0.dp = 2
      $0.generatorRankCount = 2
    }.problems
    #expect(small.map(\.key) == ["mesh.sp", "mesh.sp"])
    #expect(small[0].message.contains("(of the 2 ranks that score samples"))
    #expect(small[1].message.contains("of the 2 ranks that hold the generator"))
    #expect(
      small[0].message.hasSuffix(
        "; legal here: mesh.generatorRanks 2, mesh.zeroStage 1, mesh.dp 1, mesh.sp 1"))
    // Six heads in four parts.
    let heads = search(8) {
      $0.generatorRankCount = 4
      $0.generatorDegrees = [.sp: 4]
    }.problems
    #expect(heads.map(\.key) == ["mesh.generatorSp"])
    #expect(heads[0].message.contains("does not divide the 6 attention heads"))
    #expect(heads[0].message.contains("of the 4 ranks that hold the generator"))
    let cut = search(8) {
      $0.generatorRankCount = 4
      $0.generatorDegrees = [.tp: 2]
      $0.generatorStage = .gradients
    }.problems
    #expect(cut.map(\.key) == ["mesh.generatorTp"])
    // All that is wrong is told.
    let both = search(4) {
      $0.sp = 3
      $0.generatorRankCount = 9
    }.problems
    #expect(both.map(\.key) == ["mesh.generatorRanks", "mesh.sp"])
    #expect(both[0].message.contains("legal here: mesh.generatorRanks 3"))
    let many = search(4) { $0.generatorRankCount = 4 }.problems
    #expect(many.map(\.key) == ["mesh.generatorRanks"])
    #expect(many[0].message.contains("1 to 3 can hold the generator"))
    #expect(many[0].message.contains("legal here: mesh.generatorRanks 3, mesh.zeroStage 1"))
    let uneven = search(4, stage: .parameters) { $0.generatorRankCount = 1 }.problems
    #expect(uneven.map(\.key) == ["mesh.zeroStage"])
    #expect(uneven[0].message.contains("3 data-parallel ranks sum gradients in every round"))
    #expect(uneven[0].message.contains("(of the 3 ranks that score samples with"))
    #expect(uneven[0].message.contains("legal here: mesh.generatorRanks 1, mesh.zeroStage 1"))
    #expect(search(9).problems.map(\.key) == ["batch.microbatches"])
  }
}

struct RoleTimelineTests {
  /// The schedule of every rank, event by event: who has what at the end of each step.
  private func simulated(_ timeline: RoleTimeline, cycleCount: Int) -> Double {
    var clock = 0.0
    for step in 0..<cycleCount * timeline.criticRatio {
      var (generator, score) = (clock, clock)
      if step % timeline.criticRatio == 0 {
        generator += timeline.training
        score += timeline.scores
      }
      generator += timeline.samples
      score += timeline.criticTurn
      clock = max(generator, score)
    }
    return clock / Double(cycleCount)
  }

  @Test(arguments: [1, 2, 5])
  func `a cycle is that of the schedule, and nobody waits more than all of it`(_ ratio: Int) {
    for (training, samples, scores, criticTurn) in [
      (4.5, 2.5, 2.0, 2.0), (4.5, 2.5, 3.0, 6.0), (3, 1, 2, 2), (1, 1, 1, 1),
    ] {
      let timeline = RoleTimeline(
        criticRatio: ratio, training: training, samples: samples, scores: scores,
        criticTurn: criticTurn)
      #expect(abs(timeline.cycle - simulated(timeline, cycleCount: 4)) < 1e-9)
      let idle = RankRole.allCases.map(timeline.idleShare(of:))
      #expect(idle.allSatisfy { $0 > -1e-12 && $0 < 1 })
      #expect(ratio > 1 || (idle.min() ?? 1) < 1e-12, "one of the roles never waits")
    }
  }
}
