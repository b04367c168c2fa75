// Which layouts a number of ranks allows on paper, which of them fit nodes of a size, and the best.
//
// Searched: tp 1, 2, 4, 8; sp every divisor of the heads that tp leaves; ring 1 to 16 and stages 1 to 32, powers of two;
// data parallelism with the rest, sharded over all of it or over a power-of-two part of it (hybrid); ZeRO-1,
// 2, 3; 1F1B, GPipe and two chunks a stage where microbatches divide; ZeRO-1 with and without overlap, since sums
// of small blocks pay for it in messages. A node takes as many ranks of a layout as its bytes allow, at
// most the machine's, or half, a quarter … of them: few ranks have the node's link for themselves, but need
// more nodes. Of an axis whose degree is given no other is looked at. Best is what takes the fewest
// node-seconds a step.

package import MeshLayout

/// What may be searched.
package struct LayoutRules: Equatable, Sendable {
  /// Whether gathers and sums of blocks may run beside computing.
  package var overlaps = true
  /// Local blocks in place of pipeline stages: other gradients, only a fill.
  package var usesLocalBlocks = false
  /// Only what the worker runs today.
  package var onlyToday = false
  /// Degrees that must be as they are here; others are free.
  package var fixed: [Axis: Int] = [:]
  /// Which stage of ZeRO it must be, where ranks share state at all; nil: any.
  package var fixedZeroStage: Int?

  package init() {}

  /// The degrees of an axis that are looked at: those given, or the one that must be.
  fileprivate func degrees(of axis: Axis, _ usual: [Int]) -> [Int] {
    fixed[axis].map { [$0] } ?? usual
  }

  /// Whether a layout is as it must be.
  fileprivate func allow(_ layout: SimulatedLayout) -> Bool {
    fixed.allSatisfy { layout.shape[$0.key] == $0.value }
      && (layout.shardCount == 1 || layout.zeroStage == fixedZeroStage ?? layout.zeroStage)
  }
}

extension SimulatedRun {
  /// Legal layouts of a number of ranks. `ranksPerNode` is the machine's.
  package func layouts(
    rankCount: Int, microbatchCount: Int, _ rules: LayoutRules = LayoutRules()
  ) -> [SimulatedLayout] {
    let model = work.model
    var layouts: [SimulatedLayout] = []
    for stages in rules.degrees(of: .stages, [1, 2, 4, 8, 16, 32])
    where rules.onlyToday ? stages == 1 : true {
      guard stages <= model.blocks.count, rankCount.isMultiple(of: stages) else { continue }
      for tp in rules.degrees(of: .tp, [1, 2, 4, 8]) where rules.onlyToday ? tp == 1 : true {
        let rest = rankCount / stages
        guard model.headCount.isMultiple(of: tp), rest.isMultiple(of: tp) else { continue }
        let heads = model.headCount / tp
        for sp in 1...heads where heads.isMultiple(of: sp) && (rest / tp).isMultiple(of: sp) {
          for ring in rules.degrees(of: .ring, [1, 2, 4, 8, 16]) {
            let dataDegree = rest / tp / sp / ring
            guard dataDegree * ring * sp * tp == rest, dataDegree <= microbatchCount else {
              continue
            }
            let shape = MeshShape([.stages: stages, .ring: ring, .sp: sp, .tp: tp])
            layouts += variants(
              shape, dataDegree: dataDegree, microbatchCount: microbatchCount, rules)
          }
        }
      }
    }
    return layouts.filter { layout in
      (!rules.onlyToday || layout.runsToday(microbatchCount: microbatchCount))
        && rules.allow(layout)
    }
  }

  /// ZeRO stages, hybrid sharding and schedules of the given degrees.
  private func variants(
    _ shape: MeshShape, dataDegree: Int, microbatchCount: Int, _ rules: LayoutRules
  ) -> [SimulatedLayout] {
    let count = (microbatchCount + dataDegree - 1) / dataDegree
    var zeros = [dataDegree]
    while let last = zeros.last, last.isMultiple(of: 2) {
      zeros.append(last / 2)
    }
    let degrees = rules.fixed[.zero].map { [$0] } ?? rules.fixed[.dp].map { [dataDegree / $0] }
    if let degrees { zeros = degrees.filter { $0 > 0 && dataDegree.isMultiple(of: $0) } }
    return zeros.flatMap { zero -> [SimulatedLayout] in
      var shape = shape
      (shape[.dp], shape[.zero]) = (dataDegree / zero, zero)
      let isAlone = zero * shape[.ring] * shape[.sp] == 1
      return (isAlone ? [1] : [1, 2, 3]).flatMap { zeroStage in
        schedules(stages: shape[.stages], microbatchCount: count, rules).flatMap { schedule in
          overlaps(rules).map { overlaps in
            SimulatedLayout(
              shape: shape, zeroStage: zeroStage, schedule: schedule, overlaps: overlaps,
              ranksPerNode: work.machine.largestRankCountOfNode)
          }
        }
      }
    }
  }

  private func overlaps(_ rules: LayoutRules) -> [Bool] {
    guard rules.overlaps && !rules.onlyToday else { return [false] }
    return [true, false]
  }

  private func schedules(
    stages: Int, microbatchCount: Int, _ rules: LayoutRules
  ) -> [PipelineSchedule] {
    if stages == 1 { return [.oneForwardOneBackward] }
    if rules.usesLocalBlocks { return [.localBlocks] }
    let isInterleaved =
      microbatchCount.isMultiple(of: stages) && work.model.blocks.count >= 2 * stages
    return [.oneForwardOneBackward, .gPipe] + (isInterleaved ? [.interleaved(2)] : [])
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
  /// "ZeRO-1" …, or "stages".
  package let kind: String
  package let layout: String
  package let byteCountPerRank: Int
  /// For each size of nodes; 0 where one rank is too much.
  package let ranksPerNode: [Int]
}

extension SimulatedRun {
  /// The leanest layouts without stages of each ZeRO stage, and the leanest with stages.
  package func leanest(
    _ candidates: [Candidate], nodeMemories: [Double]
  ) -> [LeanestLayout] {
    func kind(_ layout: SimulatedLayout) -> String {
      layout.stageCount > 1 ? "stages" : "ZeRO-\(layout.zeroStage)"
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
