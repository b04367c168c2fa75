// What a run costs, phase by phase and rank by rank: data parallel with state, gradients or parameters sharded,
// tokens shared by all-to-all and around a ring where the mesh says so.
//
// Memory: peaks of the twins' ledgers, exact up to lifetimes of temporaries. Operations: matrix products
// and attention, counted where they are made (recomputation included). Time: operations of the
// busiest rank over a measured product rate; elementwise work, exchange and waiting come on top, so
// it is a lower bound.

package import MeshLayout

/// What one phase costs.
package struct PhaseCosts: Codable, Equatable, Sendable {
  package let name: String
  package let stepCount: Int
  /// By rank.
  package let memory: [PlannedMemory]
  /// Floating-point operations of a step, a mean over steps, by rank.
  package let operationsPerStep: [Double]
  /// Bytes of gradients and parameters that all ranks send in a step before coding, a mean over steps.
  package let updateByteCountPerStep: Int
  /// Bytes of activations that all ranks send in a step, a mean over steps.
  package let activationByteCountPerStep: Int

  /// Bytes that all ranks send in a step before coding, a mean over steps.
  package var exchangeByteCountPerStep: Int { updateByteCountPerStep + activationByteCountPerStep }

  /// Lower bound of a step in seconds at a rate of products in GFLOP/s per rank.
  package func seconds(gigaflops: Double) -> Double {
    (operationsPerStep.max() ?? 0) / (gigaflops * 1e9)
  }
}

/// What a run costs.
package struct RunCosts: Codable, Equatable, Sendable {
  package let phases: [PhaseCosts]

  /// Peaks over all phases, by rank: what the ledger shows at the end of the run.
  package var memory: [PlannedMemory] {
    (0..<(phases.first?.memory.count ?? 0)).map { rank in
      let parts = phases.map { $0.memory[rank] }
      return PlannedMemory(
        accounts: PlannedRole.allCases.flatMap { role in
          PlannedCategory.allCases.compactMap { category in
            let peak = parts.map { $0.peakByteCount(role, category) }.max() ?? 0
            return peak == 0
              ? nil : PlannedAccount(role: role, category: category, peakByteCount: peak)
          }
        }, totalPeakByteCount: parts.map(\.totalPeakByteCount).max() ?? 0)
    }
  }

  /// Of the rank that needs most.
  package var peakByteCountPerRank: Int { memory.map(\.totalPeakByteCount).max() ?? 0 }
  /// Over all ranks.
  package var totalPeakByteCount: Int { memory.reduce(0) { $0 + $1.totalPeakByteCount } }
}

package enum CostModel {
  /// - Throws: `MeshLayoutError` when there are more data-parallel ranks than microbatches.
  package static func costs(
    of sizes: WorkloadSizes, shape: MeshShape
  ) throws(MeshLayoutError) -> RunCosts {
    let share = try shape.share(of: sizes.microbatchCount)
    let rankCount = shape.rankCount
    var seen: [RankKind: RankCosts] = [:]
    let ranks = (0..<rankCount).map { rank -> RankCosts in
      let kind = RankKind(sizes, rank: rank, shape: shape, share: share)
      if let costs = seen[kind] { return costs }
      let twins = PhaseTwins(
        sizes: sizes, place: RankPlace(rank: rank, shape: shape),
        microbatchCount: kind.microbatchCount, roundCount: shape[.zero], part: kind.part,
        keepsPackedWeights: sizes.keepsPackedWeights(shape))
      let costs = RankCosts(
        teach: twins.teach(), distill: twins.distill(), evaluate: twins.evaluate())
      seen[kind] = costs
      return costs
    }
    func sum(_ parts: [RankPhase], _ path: KeyPath<RankPhase, Double>) -> Int {
      Int(parts.reduce(0) { $0 + $1[keyPath: path] }.rounded())
    }
    func phase(_ name: String, stepCount: Int, _ parts: [RankPhase]) -> PhaseCosts? {
      parts.isEmpty
        ? nil
        : PhaseCosts(
          name: name, stepCount: stepCount, memory: parts.map(\.memory),
          operationsPerStep: parts.map(\.operationsPerStep),
          updateByteCountPerStep: sum(parts, \.updateByteCountPerStep),
          activationByteCountPerStep: sum(parts, \.activationByteCountPerStep))
    }
    let phases = [
      phase(
        "teach", stepCount: sizes.teachStepCount,
        sizes.teachStepCount > 0 ? ranks.map(\.teach) : []),
      phase(
        "distill", stepCount: sizes.distillStepCount,
        sizes.distillStepCount > 0 ? ranks.compactMap(\.distill) : []),
      phase("evaluate", stepCount: 0, ranks.map(\.evaluate)),
    ]
    return RunCosts(phases: phases.compactMap(\.self))
  }

  /// What tells ranks of a run apart; ranks of one kind cost the same.
  private struct RankKind: Hashable {
    let microbatchCount: Int
    let part: SequencePart?
    /// Own elements of each network, at stages above 1 of each unit; then what this replica sums of them.
    let shardCounts: [Int]

    init(_ sizes: WorkloadSizes, rank: Int, shape: MeshShape, share: MicrobatchShare) {
      let degree = shape.sequenceDegree
      microbatchCount = share.microbatches(of: rank / degree).count
      let place = shape.coordinates(of: rank)
      part =
        degree > 1
        ? SequencePart(
          ringRank: place[.ring, default: 0], ringDegree: shape[.ring],
          rank: place[.sp, default: 0], degree: shape[.sp]) : nil
      let sharding = RankPlace(rank: rank, shape: shape)
      func own(_ counts: [Int]) -> [Int] {
        counts.map {
          ShardPartition(count: $0, shardCount: sharding.rankCount).range(of: sharding.rank).count
        }
      }
      let networks =
        [sizes.networkUnits, sizes.adapterUnits].map { $0.map(\.elementCount) }
        + [[sizes.headElementCount]]
      let counts = networks.map {
        own(sharding.zeroStage == .optimizer ? [$0.reduce(0, +)] : $0)
      }
      let parts = counts.map {
        ShardPartition(count: $0.reduce(0, +), shardCount: sharding.replicaCount)
          .range(of: sharding.replica).count
      }
      shardCounts = counts.flatMap(\.self) + parts
    }
  }

  private struct RankCosts {
    let teach: RankPhase
    let distill: RankPhase?
    let evaluate: RankPhase
  }
}
