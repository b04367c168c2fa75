// What a run costs, phase by phase and rank by rank: data parallel with state, gradients or parameters sharded,
// tokens shared by all-to-all and around a ring, weights cut, and roles on ranks of their own, where the mesh
// says so.
//
// Where blocks are cut into stages, microbatches are in flight.
//
// Memory: peaks of the twins' ledgers, exact up to lifetimes of temporaries. Operations: matrix products
// and attention, counted where they are made (recomputation included). Time: `StepTime`.

package import MeshLayout

/// What one phase costs.
package struct PhaseCosts: Codable, Equatable, Sendable {
  package let name: String
  package let stepCount: Int
  /// By rank.
  package let memory: [PlannedMemory]
  /// What a step takes, a mean over steps, by rank.
  package let work: [StepWork]
  /// Bytes of gradients and parameters that all ranks send in a step before coding, a mean over steps.
  package let updateByteCountPerStep: Int
  /// Bytes of activations that all ranks send in a step, a mean over steps.
  package let activationByteCountPerStep: Int
  /// Time of a step over that of the busiest rank's operations: what the stages of a pipeline wait for each other;
  /// 1 without stages.
  package let pipelineStretch: Double
  /// Of a distillation with split roles.
  package let roles: RoleTimeline?

  /// Operations of a step that run one after the other, a mean over steps: those of the busiest rank, and what
  /// roles that are split, or stages, wait for each other.
  package var serialOperationsPerStep: Double {
    roles?.step ?? (operationsPerStep.max() ?? 0) * pipelineStretch
  }

  /// Bytes that all ranks send in a step before coding, a mean over steps.
  package var exchangeByteCountPerStep: Int { updateByteCountPerStep + activationByteCountPerStep }

  /// Floating-point operations of a step, a mean over steps, by rank.
  package var operationsPerStep: [Double] { work.map(\.operationCount) }
}

/// What a run costs.
package struct RunCosts: Codable, Equatable, Sendable {
  package let phases: [PhaseCosts]
  /// Bytes of the largest bucket of an update; 0 on one rank.
  package let bucketByteCount: Int
  /// Whether blocks are loaded, and their gradients summed, while others are computed.
  package let overlapsExchange: Bool
  /// Bytes of a rank's partial sums of a product in slices; 0 where none is made in slices.
  package let sliceByteCount: Int

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
        }, totalPeakByteCount: parts.map(\.totalPeakByteCount).max() ?? 0,
        poolByteCount: parts.map(\.poolByteCount).max() ?? 0,
        largestSendByteCount: parts.map(\.largestSendByteCount).max() ?? 0)
    }
  }

  /// Of the rank that needs most.
  package var fullest: PlannedMemory? {
    memory.max { $0.totalPeakByteCount < $1.totalPeakByteCount }
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
    let places =
      sizes.method == .distributionMatching
      ? try shape.roles(of: sizes.microbatchCount) : nil
    let keepsPackedWeights = sizes.keepsPackedWeights(shape)
    var seen: [RankKind: RankCosts] = [:]
    let ranks = (0..<rankCount).map { rank -> RankCosts in
      let kind = RankKind(sizes, rank: rank, shape: shape, share: share, places: places)
      if let costs = seen[kind] { return costs }
      func twins(_ kind: RankKind, _ shape: MeshShape, rank: Int) -> PhaseTwins {
        PhaseTwins(
          sizes: sizes, place: RankPlace(rank: rank, shape: shape),
          microbatchCount: kind.microbatchCount, roundCount: shape[.zero], part: kind.part,
          stage: kind.stage.map {
            StageTwin(index: $0, count: shape[.stages], schedule: sizes.schedule)
          },
          keepsPackedWeights: keepsPackedWeights, latentReceiverCount: kind.latentReceiverCount)
      }
      let all = twins(kind, shape, rank: rank)
      let distill: RankPhase?
      let evaluate: RankPhase
      if let places, let role = kind.role, let shape = places.shapes[role],
        let ownKind = kind.inRole.first
      {
        let set = twins(ownKind, shape, rank: rank - places.firstRank(of: role))
        distill = all.distill(role, in: set)
        evaluate = all.evaluate(after: role, in: set)
      } else {
        distill = all.distill()
        evaluate = all.evaluate()
      }
      let costs = RankCosts(teach: all.teach(), distill: distill, evaluate: evaluate)
      seen[kind] = costs
      return costs
    }
    func sum(_ parts: [RankPhase], _ path: KeyPath<StepWork, Double>) -> Int {
      Int(parts.reduce(0) { $0 + $1.work[keyPath: path] }.rounded())
    }
    func phase(_ name: String, stepCount: Int, _ parts: [RankPhase]) -> PhaseCosts? {
      parts.isEmpty
        ? nil
        : PhaseCosts(
          name: name, stepCount: stepCount, memory: parts.map(\.memory),
          work: parts.map(\.work),
          updateByteCountPerStep: sum(parts, \.updateByteCount),
          activationByteCountPerStep: sum(parts, \.sentByteCount),
          pipelineStretch: stretch(parts, shape),
          roles: places.flatMap { timeline(of: parts, $0, criticRatio: sizes.criticRatio) })
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
    return RunCosts(
      phases: phases.compactMap(\.self),
      bucketByteCount: rankCount > 1
        ? min(sizes.bucketByteCount, 4 * sizes.networkElementCount) : 0,
      overlapsExchange: sizes.overlapsExchange, sliceByteCount: sizes.sliceByteCount(shape))
  }

  /// What the pipeline of rank 0 makes of a step.
  private static func stretch(_ ranks: [RankPhase], _ shape: MeshShape) -> Double {
    let stages = shape.group(along: .stages, of: 0).map { ranks[$0].turns }
    let turnCount = stages.map(\.count).min() ?? 0
    return stretch((0..<turnCount).map { turn in stages.map { $0[turn] } })
  }

  /// - Parameter turns: each by stage.
  private static func stretch(_ turns: [[[StageTurn]]]) -> Double {
    guard turns.contains(where: { $0.count > 1 }) else { return 1 }
    var (length, busy) = (0.0, 0.0)
    for stages in turns {
      length += StageTwin.makespan(stages)
      busy += stages.map { $0.reduce(0) { $0 + $1.operationCount } }.max() ?? 0
    }
    return busy == 0 ? 1 : length / busy
  }

  /// Nil for a phase in which all ranks do the same.
  private static func timeline(
    of ranks: [RankPhase], _ places: RolePlaces, criticRatio: Int
  ) -> RoleTimeline? {
    guard ranks.contains(where: { $0.roleTurns != nil }) else { return nil }
    /// Of the busiest rank, with what the stages of a pipeline wait for each other.
    func busiest(_ role: RankRole, _ path: KeyPath<RoleTurns, RoleTurns.Turn>) -> Double {
      let turns = ranks.indices.filter { places.role(of: $0) == role }
        .compactMap { ranks[$0].roleTurns?[keyPath: path] }
      let stages =
        places.shapes[role]?.group(along: .stages, of: 0).map { turns[$0].stage } ?? []
      return (turns.map(\.operationCount).max() ?? 0) * stretch([stages])
    }
    return RoleTimeline(
      criticRatio: criticRatio, training: busiest(.generator, \.generatorTurn),
      samples: busiest(.generator, \.everyStep), scores: busiest(.score, \.generatorTurn),
      criticTurn: busiest(.score, \.everyStep))
  }

  /// What tells ranks of a run apart; ranks of one kind cost the same.
  private struct RankKind: Hashable {
    let microbatchCount: Int
    let part: SequencePart?
    /// Which stage of a pipeline; nil where there is one.
    let stage: Int?
    /// Own elements of each network, at stages above 1 of each unit; then what this replica sums of them.
    let shardCounts: [Int]
    let place: Int
    /// Where roles are split, what it is among those of its role: one kind.
    let role: RankRole?
    let inRole: [RankKind]
    /// To how many of the other role's it sends latents.
    let latentReceiverCount: Int

    init(
      _ sizes: WorkloadSizes, rank: Int, shape: MeshShape, share: MicrobatchShare,
      places: RolePlaces? = nil, latentReceiverCount: Int = 0
    ) {
      self.latentReceiverCount = latentReceiverCount
      let role = places?.role(of: rank)
      self.role = role
      inRole =
        if let places, let role, let shape = places.shapes[role] {
          [
            RankKind(
              sizes, rank: rank - places.firstRank(of: role), shape: shape,
              share: places.share(of: role), latentReceiverCount: places.receiverCount(of: rank))
          ]
        } else {
          []
        }
      let degree = shape.sequenceDegree
      microbatchCount = share.microbatches(of: shape.dataRank(of: rank)).count
      stage = shape[.stages] > 1 ? shape.coordinates(of: rank)[.stages] : nil
      part = degree > 1 ? SequencePart(rank: rank, shape: shape) : nil
      let sharding = RankPlace(rank: rank, shape: shape)
      let networks =
        [sizes.networkUnits, sizes.adapterUnits, sizes.headUnits].filter { !$0.isEmpty }
      let counts = networks.map { units in
        ParametersTwin.sharding(
          of: units, rankCount: sharding.rankCount, zeroStage: sharding.zeroStage,
          stageCount: sharding.stageCount
        ).stretches(of: sharding.rank).map(\.local.count)
      }
      let parts = counts.map {
        ShardPartition(count: $0.reduce(0, +), shardCount: sharding.replicaCount)
          .range(of: sharding.replica).count
      }
      shardCounts = counts.flatMap(\.self) + parts
      // Which of its elements others compute with depends on where they lie.
      place = shape[.tp] > 1 ? sharding.rank : 0
    }
  }

  private struct RankCosts {
    let teach: RankPhase
    let distill: RankPhase?
    let evaluate: RankPhase
  }
}
