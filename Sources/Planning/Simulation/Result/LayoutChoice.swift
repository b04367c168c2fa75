// Which layouts of a number of ranks keep the worker's rules, which of them fit nodes of a size, and the best.
//
// Searched: tp 1, 2, 4, 8; sp every divisor of the heads that tp leaves; ring 1 to 16 and stages 1 to 32, powers of two;
// data parallelism with the rest, sharded over all of it or over a power-of-two part of it (hybrid); ZeRO-1, 2, 3; 1F1B and
// GPipe; roles on all ranks, or split with the number of generator ranks that makes the shortest steps by operations. What
// of it is legal `MeshSearch` says, and whoever knows the configuration (`LayoutRules.allows`). A node takes as many
// ranks of a layout as its bytes allow, at most the machine's, or half, a quarter … of them: few ranks have the node's
// link for themselves, but need more nodes. Of an axis whose degree is given no other is looked at. Best is what takes
// the fewest node-seconds a step.
//
// On paper, where it is asked for: two chunks of blocks a stage (interleaved), and local blocks.

package import MeshLayout

/// What may be searched.
package struct LayoutRules: Sendable {
  /// Whether gathers and sums of blocks run beside computing.
  package var overlaps = true
  /// Two chunks a stage as well, where microbatches divide. The worker has no such stages.
  package var interleaves = false
  /// Local blocks in place of pipeline stages: other gradients, only a fill. The worker has no such stages.
  package var usesLocalBlocks = false
  /// Degrees that must be as they are here; others are free.
  package var fixed: [Axis: Int] = [:]
  /// Which stage of ZeRO it must be, where ranks share state at all; nil: any.
  package var fixedZeroStage: ZeroStage?
  /// Whether roles may be on all ranks, and whether on ranks of their own.
  package var colocatesRoles = true
  package var splitsRoles = true
  /// Of split roles: how many ranks hold the generator, their degrees and stage where they are not those of all ranks.
  package var generatorRankCount: Int?
  package var generatorDegrees: [Axis: Int] = [:]
  package var generatorZeroStage: ZeroStage?
  /// What the worker says of a layout with so many microbatches, besides `MeshSearch`.
  package var allows: @Sendable (_ layout: SimulatedLayout, _ microbatchCount: Int) -> Bool = {
    _, _ in true
  }

  package init() {}

  /// The degrees of an axis that are looked at: those given, or the one that must be.
  fileprivate func degrees(of axis: Axis, _ usual: [Int]) -> [Int] {
    fixed[axis].map { [$0] } ?? usual
  }

  /// Whether a layout is as it must be.
  fileprivate func keepsFixed(_ shape: MeshShape) -> Bool {
    fixed.allSatisfy { shape[$0.key] == $0.value }
      && (shape.rankCount == shape[.dp] || shape.zeroStage == fixedZeroStage ?? shape.zeroStage)
  }
}

extension SimulatedRun {
  /// Legal layouts of a number of ranks. `ranksPerNode` is the machine's.
  package func layouts(
    rankCount: Int, microbatchCount: Int, _ rules: LayoutRules = LayoutRules()
  ) -> [SimulatedLayout] {
    let search = MeshSearch(
      rankCount: rankCount, microbatchCount: microbatchCount, headCount: work.model.headCount,
      mlpWidth: sizes.network.mlpWidth, blockCount: work.model.blocks.count)
    let splits = rules.splitsRoles && canSplitRoles
    // Of a microbatch.
    let operations = splits ? RoleTimeline(sizes) { operationCount($1) } : nil
    return shapes(rankCount: rankCount, microbatchCount: microbatchCount, rules)
      .filter { rules.keepsFixed($0) && search.allows($0) }
      .flatMap { shape -> [MeshShape] in
        let split = operations.flatMap {
          splitShape(shape, $0, microbatchCount: microbatchCount, rules, search)
        }
        return (rules.colocatesRoles ? [shape] : []) + (split.map { [$0] } ?? [])
      }
      .flatMap { variants($0, microbatchCount: microbatchCount, rules) }
      .filter { rules.allows($0, microbatchCount) }
  }

  /// Degrees that make up the ranks.
  private func shapes(
    rankCount: Int, microbatchCount: Int, _ rules: LayoutRules
  ) -> [MeshShape] {
    let model = work.model
    var shapes: [MeshShape] = []
    for stages in rules.degrees(of: .stages, [1, 2, 4, 8, 16, 32]) {
      guard stages > 0, stages <= model.blocks.count, rankCount.isMultiple(of: stages) else {
        continue
      }
      for tp in rules.degrees(of: .tp, [1, 2, 4, 8]) {
        let rest = rankCount / stages
        guard tp > 0, model.headCount.isMultiple(of: tp), rest.isMultiple(of: tp) else { continue }
        let heads = model.headCount / tp
        for sp in 1...heads where heads.isMultiple(of: sp) && (rest / tp).isMultiple(of: sp) {
          for ring in rules.degrees(of: .ring, [1, 2, 4, 8, 16]) where ring > 0 {
            let dataDegree = rest / tp / sp / ring
            guard dataDegree * ring * sp * tp == rest, dataDegree <= microbatchCount else {
              continue
            }
            let shape = MeshShape([.stages: stages, .ring: ring, .sp: sp, .tp: tp])
            shapes += variants(shape, dataDegree: dataDegree, rules)
          }
        }
      }
    }
    return shapes
  }

  /// Hybrid sharding and ZeRO stages of the given degrees.
  private func variants(
    _ shape: MeshShape, dataDegree: Int, _ rules: LayoutRules
  ) -> [MeshShape] {
    var zeros = [dataDegree]
    while let last = zeros.last, last.isMultiple(of: 2) {
      zeros.append(last / 2)
    }
    let degrees =
      rules.fixed[.zero].map { [$0] } ?? rules.fixed[.dp].map { [dataDegree / max($0, 1)] }
    if let degrees { zeros = degrees.filter { $0 > 0 && dataDegree.isMultiple(of: $0) } }
    return zeros.flatMap { zero in
      ZeroStage.allCases.map { stage in
        var shape = shape
        (shape[.dp], shape[.zero], shape.zeroStage) = (dataDegree / zero, zero, stage)
        return shape
      }
    }
  }

  /// The same ranks with roles split: as many with the generator as make the shortest steps, if only operations took
  /// time; nil where no number is legal.
  /// - Parameter operations: of the turns for a microbatch.
  private func splitShape(
    _ shape: MeshShape, _ operations: RoleTimeline, microbatchCount: Int, _ rules: LayoutRules,
    _ search: MeshSearch
  ) -> MeshShape? {
    var generator = shape
    for (axis, degree) in rules.generatorDegrees { generator[axis] = degree }
    generator[.zero] = 1
    let (unit, generatorUnit) = (shape.rankCount / shape[.zero], generator.rankCount)
    let usualStage =
      generator[.tp] > 1 || generator[.stages] > 1 ? ZeroStage.parameters : shape.zeroStage
    var best: (shape: MeshShape, step: Double)?
    for zero in 1..<max(shape[.zero], 1) {
      let count = shape.rankCount - zero * unit
      generator[.zero] = count / generatorUnit
      guard count.isMultiple(of: generatorUnit), count == rules.generatorRankCount ?? count,
        max(zero * shape[.dp], generator.dataParallelDegree) <= microbatchCount
      else { continue }
      generator.zeroStage =
        count == generator[.dp] ? .optimizer : rules.generatorZeroStage ?? usualStage
      var split = shape
      split.generatorRanks = GeneratorRanks(generator)
      func load(_ set: MeshShape) -> Double {
        let degree = set.dataParallelDegree
        return Double((microbatchCount + degree - 1) / degree * degree) / Double(set.rankCount)
      }
      let loads = (score: load(split.scoreShape), generator: load(generator))
      let step = RoleTimeline(
        criticRatio: sizes.criticRatio, training: loads.generator * operations.training,
        samples: loads.generator * operations.samples, scores: loads.score * operations.scores,
        criticTurn: loads.score * operations.criticTurn
      ).step
      // Of equal ones the fewest generator ranks, which come last.
      guard step <= best?.step ?? .infinity, search.allows(split) else { continue }
      best = (split, step)
    }
    return best?.shape
  }

  /// Schedules and overlap.
  private func variants(
    _ shape: MeshShape, microbatchCount: Int, _ rules: LayoutRules
  ) -> [SimulatedLayout] {
    let sets = shape.generatorRanks.map { [shape.scoreShape, $0.shape] } ?? [shape]
    let stages = sets.map { $0[.stages] }.max() ?? 1
    // At stage 1 nothing but queries, keys and values travels beside computing, which is not simulated.
    let overlaps = rules.overlaps && sets.contains { $0.zeroStage != .optimizer }
    let most = sets.map {
      (microbatchCount + $0.dataParallelDegree - 1) / $0.dataParallelDegree
    }
    var schedules = [PipelineSchedule.oneForwardOneBackward]
    if stages > 1 {
      let isInterleaved =
        rules.interleaves && most.allSatisfy { $0.isMultiple(of: stages) }
        && work.model.blocks.count >= 2 * stages
      schedules =
        rules.usesLocalBlocks
        ? [.localBlocks]
        : [.oneForwardOneBackward, .gPipe] + (isInterleaved ? [.interleaved(2)] : [])
    }
    return schedules.map {
      SimulatedLayout(
        shape: shape, schedule: $0, overlaps: overlaps,
        ranksPerNode: work.machine.largestRankCountOfNode)
    }
  }

  /// The layout on as many ranks of a node as its bytes allow, then on fewer; empty where one rank
  /// is too much.
  package func placements(
    _ layout: SimulatedLayout, byteCount: Int, memoryPerNode: Double
  ) -> [SimulatedLayout] {
    var placements: [SimulatedLayout] = []
    var placed = layout
    placed.ranksPerNode = min(work.machine.largestRankCountOfNode, layout.rankCount)
    while placed.ranksPerNode > 0 {
      if Double(placed.ranksPerNode) * Double(byteCount) <= memoryPerNode {
        placements.append(placed)
      }
      placed.ranksPerNode /= 2
    }
    return placements
  }

  /// A layout with its bytes.
  package struct Candidate: Sendable {
    package let layout: SimulatedLayout
    package let byteCount: Int
  }

  /// All legal layouts with their bytes.
  package func candidates(
    rankCount: Int, microbatchCount: Int, _ rules: LayoutRules = LayoutRules()
  ) -> [Candidate] {
    layouts(rankCount: rankCount, microbatchCount: microbatchCount, rules).map {
      Candidate(
        layout: $0, byteCount: memory($0, microbatchCount: microbatchCount).byteCount)
    }
  }

  /// The layouts that fit and take the fewest node-seconds, best first.
  /// - Parameters:
  ///   - limit: how many.
  ///   - tolerance: what a layout must be better by than a simpler one, as a share. Default: 0.01, well
  ///     below what the model can tell apart.
  /// - Cost: simulates only layouts whose lower bound beats the worst one kept.
  package func best(
    _ candidates: [Candidate], microbatchCount: Int, memoryPerNode: Double, limit: Int = 1,
    tolerance: Double = 0.01
  ) -> [LayoutEstimate] {
    var placed = candidates.flatMap { candidate in
      placements(
        candidate.layout, byteCount: candidate.byteCount, memoryPerNode: memoryPerNode)
    }.map { layout in
      let seconds = lowerBound(layout, microbatchCount: microbatchCount)
      return (layout: layout, bound: seconds * Double(layout.nodeCount))
    }.sorted { $0.bound < $1.bound }
    let least = placed.first?.bound ?? 0
    let count = placed.prefix { $0.bound <= (1 + tolerance) * least }.count
    placed[..<count].sort {
      ($0.layout.complexity, $0.bound) < ($1.layout.complexity, $1.bound)
    }
    var best: [LayoutEstimate] = []
    for (layout, bound) in placed {
      if best.count == limit, let worst = best.last, bound >= (1 - tolerance) * worst.nodeSeconds {
        break
      }
      best.append(estimate(layout, microbatchCount: microbatchCount))
      best.sort { $0.nodeSeconds < $1.nodeSeconds }
      if best.count > limit { best.removeLast() }
    }
    return best
  }
}

/// The layout of one kind that takes the fewest bytes, and how many of its ranks nodes take.
package struct LeanestLayout: Codable, Equatable, Sendable {
  package let rankCount: Int
  /// "ZeRO-1" …, "stages" or "split".
  package let kind: String
  package let layout: String
  package let byteCountPerRank: Int
  /// For each size of nodes; 0 where one rank is too much.
  package let ranksPerNode: [Int]
}

extension SimulatedRun {
  /// The leanest layouts without stages of each ZeRO stage, the leanest with stages, and with split roles.
  package func leanest(
    _ candidates: [Candidate], nodeMemories: [Double]
  ) -> [LeanestLayout] {
    func kind(_ layout: SimulatedLayout) -> String {
      layout.shape.generatorRanks != nil
        ? "split" : layout.stageCount > 1 ? "stages" : "ZeRO-\(layout.zeroStage.rawValue)"
    }
    return Dictionary(grouping: candidates) { kind($0.layout) }.compactMap { kind, group in
      // Equal bytes: the simplest first.
      group.min {
        ($0.byteCount, $0.layout.description.count) < ($1.byteCount, $1.layout.description.count)
      }.map { leanest in
        LeanestLayout(
          rankCount: leanest.layout.rankCount, kind: kind,
          layout: leanest.layout.description, byteCountPerRank: leanest.byteCount,
          ranksPerNode: nodeMemories.map { memory in
            placements(
              leanest.layout, byteCount: leanest.byteCount, memoryPerNode: memory
            ).first?.ranksPerNode ?? 0
          })
      }
    }.sorted { $0.kind < $1.kind }
  }
}
