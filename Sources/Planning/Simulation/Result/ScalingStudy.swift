// From few ranks to thousands: the best layout that fits, for each number, for nodes of several sizes.
//
// Strong scaling keeps the microbatches of a step; weak scaling has one for each 8 ranks. Efficiency is against the smallest number of ranks that fits, by samples in a
// second and rank.

/// The best layout of a number of ranks.
package struct ScalingPoint: Codable, Equatable, Sendable {
  package let rankCount: Int
  package let ranksPerNode: Int
  package let nodeCount: Int
  package let layout: String
  package let microbatchCount: Int
  package let byteCountPerRank: Int
  /// What layouts are compared by: a distill step, or a teach step where nothing is distilled.
  package let step: StepEstimate
  /// Nil where nothing is taught.
  package let teach: StepEstimate?
  /// Where roles are split.
  package let roles: RoleEstimates?
  /// Samples in a second.
  package let samplesPerSecond: Double
  package let efficiency: Double
}

/// Points of one kind for nodes of one size.
package struct ScalingCurve: Codable, Equatable, Sendable {
  package enum Kind: String, CaseIterable, Codable, Sendable { case strong, weak }

  package let kind: Kind
  package let memoryPerNode: Double
  package let points: [ScalingPoint]
  /// Numbers of ranks for which no layout fits.
  package let unfit: [Int]
}

package struct ScalingStudy: Sendable {
  package var run: SimulatedRun
  package var rules = LayoutRules()
  package var rankCounts: [Int]
  /// Bytes of nodes.
  package var nodeMemories: [Double]

  package init(_ run: SimulatedRun, rankCounts: [Int], nodeMemories: [Double]) {
    self.run = run
    self.rankCounts = rankCounts
    self.nodeMemories = nodeMemories
  }

  /// Powers of two.
  package static let standardRankCounts = (3...12).map { 1 << $0 }

  /// Microbatches of a step.
  package func microbatchCount(_ kind: ScalingCurve.Kind, rankCount: Int) -> Int {
    switch kind {
    case .strong: run.sizes.microbatchCount
    case .weak: max(1, rankCount / 8)
    }
  }

  /// What fits with the whole batch, for each number of ranks.
  package var leanest: [LeanestLayout] {
    rankCounts.flatMap { rankCount in
      run.leanest(
        run.candidates(
          rankCount: rankCount,
          microbatchCount: microbatchCount(.strong, rankCount: rankCount), rules),
        nodeMemories: nodeMemories)
    }
  }

  /// One curve for each size of nodes.
  package func curves(_ kind: ScalingCurve.Kind) -> [ScalingCurve] {
    let candidates = rankCounts.map { rankCount in
      run.candidates(
        rankCount: rankCount,
        microbatchCount: microbatchCount(kind, rankCount: rankCount), rules)
    }
    return nodeMemories.map { memory in
      var points: [ScalingPoint] = []
      var unfit: [Int] = []
      for (rankCount, candidates) in zip(rankCounts, candidates) {
        let count = microbatchCount(kind, rankCount: rankCount)
        let found = run.best(
          candidates, microbatchCount: count, memoryPerNode: memory)
        guard let best = found.first else {
          unfit.append(rankCount)
          continue
        }
        points.append(point(best, microbatchCount: count, first: points.first))
      }
      return ScalingCurve(kind: kind, memoryPerNode: memory, points: points, unfit: unfit)
    }
  }

  /// The best layouts of a number of ranks for the whole batch, best first; efficiency against the first.
  package func points(rankCount: Int, memoryPerNode: Double, limit: Int) -> [ScalingPoint] {
    let count = microbatchCount(.strong, rankCount: rankCount)
    let found = run.best(
      run.candidates(rankCount: rankCount, microbatchCount: count, rules),
      microbatchCount: count, memoryPerNode: memoryPerNode, limit: limit)
    var points: [ScalingPoint] = []
    for estimate in found {
      points.append(point(estimate, microbatchCount: count, first: points.first))
    }
    return points
  }

  private func point(
    _ best: LayoutEstimate, microbatchCount: Int, first: ScalingPoint?
  ) -> ScalingPoint {
    let samples = Double(microbatchCount * run.sizes.samplesPerMicrobatch)
    let rate = samples / best.seconds
    let perRank = rate / Double(best.layout.rankCount)
    let reference = first.map { $0.samplesPerSecond / Double($0.rankCount) } ?? perRank
    return ScalingPoint(
      rankCount: best.layout.rankCount, ranksPerNode: best.layout.ranksPerNode,
      nodeCount: best.layout.nodeCount, layout: best.layout.description,
      microbatchCount: microbatchCount,
      byteCountPerRank: best.memory.byteCount, step: best.step, teach: best.teach,
      roles: best.roles,
      samplesPerSecond: rate,
      efficiency: perRank / reference)
  }
}
