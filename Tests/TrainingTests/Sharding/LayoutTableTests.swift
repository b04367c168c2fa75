// Every layout that the worker accepts on 2, 4 and 8 ranks, for both architectures, against one rank; of those on 8
// ranks that differ from others of the table in what CombinedAxesTests compares bit for bit, one: stages that share
// tokens are run by 1F1B alone, and roles that are split with axes of their own at stage 3 alone. The models have two and
// three blocks, so two stages: more in DeepPipelineTests. Split roles have as many ranks and the same axes: others in
// SplitRolesTests and CombinedAxesTests. Form v1 of Vchitect's block: VchitectAxesTests.

import DenseKernels
import MeshLayout
import Models
import Planning
import Testing

@testable import Training

/// A layout of the table; `zero` takes the ranks that the others leave.
struct TableLayout: Sendable, CustomStringConvertible {
  let rankCount: Int
  let architecture: Architecture
  /// A step's.
  var microbatchCount = 8
  var stage = 1
  var dp = 1
  var ring = 1
  var sp = 1
  var tp = 1
  var stages = 1
  var schedule = RunConfiguration.PipelineOrder.oneForwardOneBackward
  var plan = SequencePlan.spatial
  /// Half of the ranks hold the generator alone, with the same axes.
  var isSplit = false
  var sums = RunConfiguration.SumOrder.fast
  var hasDiscriminator = false

  var description: String {
    "\(architecture.rawValue) on \(rankCount) ranks: stage \(stage), dp \(dp), ring \(ring), sp \(sp) "
      + "\(plan), tp \(tp), stages \(stages) \(schedule.rawValue)\(isSplit ? ", split" : ""), "
      + "\(sums.rawValue) sums"
  }

  /// Whether all sums are those of the tree over microbatches, and over blocks of tokens.
  var keepsBits: Bool { sums == .canonical || ring * sp * tp == 1 }

  var configuration: RunConfiguration {
    TinyRun.configuration {
      $0.model.architecture = architecture
      $0.model.heads = sums == .canonical ? 8 : 4
      $0.model.doubleBlocks = 2
      $0.batch.microbatches = microbatchCount
      // Every network is trained twice.
      ($0.teach.steps, $0.distill.steps, $0.distill.criticRatio) = (2, 2, 1)
      $0.learnAtOnce()
      $0.compute.precision = .fp32
      $0.mesh.zeroStage = .fixed(stage)
      ($0.mesh.dp, $0.mesh.ring) = (.fixed(dp), .fixed(ring))
      ($0.mesh.sp, $0.mesh.tp) = (.fixed(sp), .fixed(tp))
      ($0.mesh.stages, $0.mesh.schedule) = (.fixed(stages), schedule)
      $0.mesh.sequencePlan = plan
      $0.mesh.sums = sums
      $0.mesh.placement = isSplit ? .split : .colocated
      if isSplit { $0.mesh.generatorRanks = .fixed(rankCount / 2) }
      guard hasDiscriminator else { return }
      // Large, so that it moves weights by more than rounding does.
      ($0.distill.lambdaAdversarial, $0.distill.lambdaDiscriminator) = (1, 1)
    }
  }

  private var isLegal: Bool { !shapes.isEmpty }

  /// None where the layout is not legal.
  var shapes: [MeshShape] {
    guard configuration.validate().isEmpty, configuration.validate(rankCount: rankCount).isEmpty,
      let sizes = try? WorkloadSizes(configuration)
    else { return [] }
    return LayoutSearch(configuration: configuration, sizes: sizes, rankCount: rankCount)
      .search().shapes
  }

  static func all(_ architecture: Architecture, ranks: Int) -> [TableLayout] {
    let degrees = [1, 2, 4, 8].filter { ranks % $0 == 0 }
    var layouts: [TableLayout] = []
    for stage in 1...3 {
      layouts.append(
        TableLayout(
          rankCount: ranks, architecture: architecture, stage: stage, isSplit: true))
      for dp in degrees {
        for ring in degrees {
          for sp in degrees {
            // Replicas of one rank have nothing to shard at any stage.
            for tp in degrees where dp * ring * sp * tp <= ranks && (dp < ranks || stage == 1) {
              let plans: [SequencePlan] =
                architecture == .vchitect && sp > 1 ? [.spatial, .all] : [.spatial]
              layouts += plans.map {
                TableLayout(
                  rankCount: ranks, architecture: architecture, stage: stage, dp: dp, ring: ring,
                  sp: sp, tp: tp, plan: $0)
              }
            }
          }
        }
      }
    }
    let isLarge = ranks == 8
    let split = layouts.filter { layout in
      let degree = layout.dp * layout.ring * layout.sp * layout.tp
      return !layout.isSplit && degree > 1 && degree <= ranks / 2 && (!isLarge || layout.stage == 3)
    }.map { layout in
      var split = layout
      split.isSplit = true
      return split
    }
    let staged = layouts.flatMap { layout in
      degrees.filter { $0 > 1 }.flatMap { stages in
        let schedules = RunConfiguration.PipelineOrder.allCases
        return (isLarge && !layout.keepsBits ? [.oneForwardOneBackward] : schedules).map {
          schedule in
          var staged = layout
          (staged.stages, staged.schedule) = (stages, schedule)
          return staged
        }
      }
    }
    let stagedSplit =
      split.flatMap { layout in
        degrees.filter { $0 > 1 }.map { stages in
          var staged = layout
          staged.stages = stages
          return staged
        }
      }
      + degrees.filter { $0 > 1 }.map {
        TableLayout(
          rankCount: ranks, architecture: architecture, stage: 3, stages: $0, isSplit: true)
      }
    return (layouts + split + staged + stagedSplit).map {
      var layout = $0
      layout.microbatchCount = max(4, ranks)
      return layout
    }.filter(\.isLegal)
  }

  /// Those of canonical sums that share tokens or cut weights; the others differ in what the table of fast sums shows. Eight
  /// ranks that share tokens alone do so at stage 3, fewer also at stage 2.
  static func canonical(_ architecture: Architecture, ranks: Int) -> [TableLayout] {
    let degrees = [1, 2, 4, 8].filter { ranks % $0 == 0 }
    var layouts: [TableLayout] = []
    for stage in 1...3 {
      for dp in degrees {
        for sp in degrees {
          for tp in degrees where sp * tp > 1 && dp * sp * tp <= ranks {
            if ranks == 8 && tp == 1 && stage < 3 { continue }
            layouts.append(
              TableLayout(
                rankCount: ranks, architecture: architecture, stage: stage, dp: dp, sp: sp, tp: tp,
                plan: .all, sums: .canonical))
          }
        }
      }
    }
    return layouts.filter(\.isLegal)
  }
}

@Suite struct LayoutTableTests {
  /// How many layouts are legal: the rules that choose them are the product's, and none may fall out of the table unseen.
  private static let counts: [Architecture: [Int: Int]] = [
    .hunyuanVideo: [2: 16, 4: 59, 8: 109], .vchitect: [2: 19, 4: 77, 8: 150],
  ]

  @Test(arguments: Architecture.allCases, [2, 4, 8])
  func `every legal layout follows one rank, bit for bit where no sum is made in another order`(
    architecture: Architecture, ranks: Int
  ) throws {
    let layouts = TableLayout.all(architecture, ranks: ranks)
    #expect(layouts.count == Self.counts[architecture]?[ranks])
    #expect(layouts.contains(where: \.keepsBits) && !layouts.allSatisfy(\.keepsBits))
    // Teach: loss, norm; distill: those of the critic's turn and of the generator's.
    try expect(layouts, toFollowOneRankOver: 2 * 2 + 2 * 4)
  }

  /// At stage 3; ZeroStagesTests has one at the others.
  @Test(arguments: Architecture.allCases)
  func `so does every one of four ranks with a discriminator`(architecture: Architecture) throws {
    var layouts = TableLayout.all(architecture, ranks: 4).filter { $0.stage == 3 }
    for index in layouts.indices { layouts[index].hasDiscriminator = true }
    // The discriminator's norm is read as well.
    try expect(layouts, toFollowOneRankOver: 2 * 2 + 2 * 5)
  }

  /// - Parameter readingCount: losses and norms of a run.
  private func expect(_ layouts: [TableLayout], toFollowOneRankOver readingCount: Int) throws {
    var whole = TableLayout(rankCount: 1, architecture: layouts[0].architecture)
    whole.microbatchCount = layouts[0].microbatchCount
    whole.hasDiscriminator = layouts[0].hasDiscriminator
    let complete = try TrainedRun(whole.configuration, ranks: 1)
    let start = try complete.start()
    #expect(complete.readings.count == readingCount)
    let isFinite = complete.weights[0].allSatisfy(\.isFinite)
    #expect(isFinite)
    for layout in layouts {
      let found = try TrainedRun(layout.configuration, ranks: layout.rankCount)
      let joins = layout.isSplit && layout.hasDiscriminator
      let alone = joins ? complete.withoutHead : complete
      // Compared outside of the expectations: a failure would print every weight.
      let agree = found.weights.allSatisfy { $0 == found.weights[0] }
      #expect(agree, "\(layout): ranks differ in weights")
      if layout.keepsBits {
        let isSame = found.weights[0] == alone.weights[0]
        #expect(isSame, "\(layout): weights differ from those of one rank")
        #expect(found.readings == alone.readings, "\(layout)")
      } else {
        found.expectFollowing(alone, from: joins ? start.withoutHead : start, "\(layout)")
      }
    }
  }

  @Test(.enabled(if: BLASRuntime.hasAVX512), arguments: Architecture.allCases)
  func
    `with canonical sums every legal layout that shares tokens or cuts weights has the bits of one rank`(
      architecture: Architecture
    ) throws
  {
    let alone = try TrainedRun(
      TableLayout(rankCount: 1, architecture: architecture, sums: .canonical).configuration,
      ranks: 1)
    let layouts = [2, 4, 8].flatMap { TableLayout.canonical(architecture, ranks: $0) }
    // dp × zero × sp at stages 2 and 3, of eight ranks at 3; with tp at stage 3 alone.
    #expect(layouts.count == 2 * (1 + 3) + 6 + (1 + 3 + 6) + (1 + 4))
    for layout in layouts {
      let found = try TrainedRun(layout.configuration, ranks: layout.rankCount)
      let isSame = found.weights.allSatisfy { $0 == alone.weights[0] }
      #expect(isSame, "\(layout): weights differ by \(found.distance(to: alone))")
      #expect(found.readings == alone.readings, "\(layout)")
    }
  }
}
