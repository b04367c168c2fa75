// A whole step: its turns one after the other, each simulated, as a mean over the steps of a generator's
// period.
//
// With one stage and blocking or one-ahead gathers, microbatches after the second repeat: their times are
// extrapolated, T(n) = T(3) + (n − 3)(T(3) − T(2)), which tests hold against the whole simulation. Split roles:
// RoleEstimates.swift.

import Basics
import MeshLayout

/// Times and bytes of a step on its busiest stage; compute, exposed communication and bubble add up to
/// the seconds.
package struct StepEstimate: Codable, Equatable, Sendable {
  package var seconds = 0.0
  package var compute = 0.0
  package var exposedCommunication = 0.0
  package var bubble = 0.0
  /// Seconds of the link, hidden or not.
  package var communication = 0.0
  /// Bytes that a rank sends.
  package var sentActivations = 0.0
  package var sentUpdates = 0.0
  package var sentBetweenStages = 0.0
  /// Samples, and gradients at them, between split roles.
  package var sentLatents = 0.0

  package init() {}

  package var sentBytes: Double {
    sentActivations + sentUpdates + sentBetweenStages + sentLatents
  }

  /// Sums, scaled.
  mutating func add(_ other: StepEstimate, times factor: Double) {
    seconds += factor * other.seconds
    compute += factor * other.compute
    exposedCommunication += factor * other.exposedCommunication
    bubble += factor * other.bubble
    communication += factor * other.communication
    sentActivations += factor * other.sentActivations
    sentUpdates += factor * other.sentUpdates
    sentBetweenStages += factor * other.sentBetweenStages
    sentLatents += factor * other.sentLatents
  }

  /// Of one turn: the stage that computes longest.
  package init(_ run: TurnProgram.Run) {
    let stages = run.timeline.stages
    guard
      let busiest = stages.indices.max(by: { stages[$0].compute < stages[$1].compute })
    else { return }
    let (times, sent) = (stages[busiest], run.sent[busiest])
    seconds = run.timeline.seconds
    compute = times.compute
    exposedCommunication = times.exposedCommunication
    bubble = times.bubble
    communication = times.communication
    sentActivations = sent.activations
    sentUpdates = sent.updates
    sentBetweenStages = sent.stages
  }

  /// A turn under a layout.
  /// - Parameters:
  ///   - releases: when the ways back of microbatches may begin, where others decide about that.
  ///   - foldsMicrobatches: extrapolates where that is exact.
  package static func turn(
    _ work: SimulatedWork, _ layout: SimulatedLayout, _ turn: SimulatedTurn,
    microbatchCount: Int, releases: [Double]? = nil, foldsMicrobatches: Bool = true
  ) -> StepEstimate {
    func estimate(_ count: Int) -> StepEstimate {
      StepEstimate(
        TurnProgram(work, layout, turn, microbatchCount: count, releases: releases).run())
    }
    guard foldsMicrobatches && releases == nil && layout.stageCount == 1 && microbatchCount > 3
    else { return estimate(microbatchCount) }
    var sum = estimate(3)
    let (three, two) = (sum, estimate(2))
    sum.add(three, times: Double(microbatchCount - 3))
    sum.add(two, times: -Double(microbatchCount - 3))
    // The difference of two sums that should be zero.
    sum.bubble = max(0, sum.bubble)
    return sum
  }
}

/// The steps of a run under a layout.
package struct LayoutEstimate: Equatable, Sendable {
  package let layout: SimulatedLayout
  /// Nil where the phase has no steps. With split roles, of the role that computes longest.
  package let teach: StepEstimate?
  package let distill: StepEstimate?
  /// Of a distillation with split roles.
  package let roles: RoleEstimates?
  /// Of the fullest rank in its fullest phase.
  package let memory: SimulatedMemory

  /// What layouts are compared by: the distillation, or teaching where nothing is distilled.
  package var seconds: Double { distill?.seconds ?? teach?.seconds ?? 0 }
  package var step: StepEstimate { distill ?? teach ?? StepEstimate() }
  /// What a step costs of a cluster.
  package var nodeSeconds: Double { seconds * Double(layout.nodeCount) }
}

/// A run that is simulated: its sizes and what its ranks are.
package struct SimulatedRun: Equatable, Sendable {
  package var sizes: WorkloadSizes
  package var work: SimulatedWork

  package init(
    _ sizes: WorkloadSizes, machine: MachineModel, state: StateBytes = .float32,
    precision: SimulatedPrecision = .fp32
  ) {
    self.sizes = sizes
    work = SimulatedWork(
      model: SimulatedModel(sizes), machine: machine, state: state, precision: precision,
      recomputedShare: sizes.recomputedShare, spreadsDepths: sizes.spreadsDepths)
  }

  /// Turns of a distill step with the share of steps that has each, where roles are colocated.
  private var turns: [(turn: SimulatedTurn, share: Double)] {
    sizes.distillStepCount > 0 ? SimulatedTurn.distill(sizes) : []
  }

  /// Whether there are roles that can be on ranks of their own.
  package var canSplitRoles: Bool {
    sizes.distillStepCount > 0 && sizes.method == .distributionMatching
  }

  /// Microbatches of the busiest data-parallel rank.
  package func microbatchCount(_ layout: SimulatedLayout, of total: Int) -> Int {
    (total + layout.dataDegree - 1) / layout.dataDegree
  }

  /// Simulates the steps.
  /// - Parameter total: microbatches of a step over all ranks.
  package func estimate(_ layout: SimulatedLayout, microbatchCount total: Int) -> LayoutEstimate {
    let all = layout.withoutRoles
    let count = microbatchCount(all, of: total)
    func turn(_ turn: SimulatedTurn) -> StepEstimate {
      .turn(work, all, turn, microbatchCount: count)
    }
    let roles =
      layout.shape.generatorRanks == nil || !canSplitRoles
      ? nil : RoleEstimates(self, layout, microbatchCount: total)
    var distill = roles?.busiest
    if roles == nil {
      for (part, share) in turns {
        var sum = distill ?? StepEstimate()
        sum.add(turn(part), times: share)
        distill = sum
      }
    }
    return LayoutEstimate(
      layout: layout, teach: sizes.teachStepCount > 0 ? turn(.teach) : nil, distill: distill,
      roles: roles, memory: memory(layout, microbatchCount: total))
  }

  /// Bytes of the fullest rank in the phase that needs most.
  package func memory(_ layout: SimulatedLayout, microbatchCount total: Int) -> SimulatedMemory {
    func part(
      _ layout: SimulatedLayout, _ networks: SimulatedMemory.Networks, hasAverage: Bool
    ) -> SimulatedMemory {
      .fullest(
        work, layout, networks, hasAverage: hasAverage,
        microbatchCount: microbatchCount(layout, of: total))
    }
    let average = sizes.keepsGeneratorAverage
    var parts: [SimulatedMemory] = []
    if sizes.teachStepCount > 0 || turns.isEmpty {
      parts.append(part(layout.withoutRoles, .taught, hasAverage: true))
    }
    if layout.shape.generatorRanks != nil && canSplitRoles {
      parts += RankRole.allCases.map { role in
        part(layout.layout(of: role), .role(role), hasAverage: role == .generator && average)
      }
    } else if !turns.isEmpty {
      let hasAdapter = sizes.method == .distributionMatching
      parts.append(
        part(layout.withoutRoles, .distilled(hasAdapter: hasAdapter), hasAverage: average))
    }
    guard var fullest = parts.last else { trap("a run without phases") }
    for part in parts where part.byteCount > fullest.byteCount { fullest = part }
    return fullest
  }

  // MARK: Bounds

  /// Seconds that no order of tasks gets below, of the phase that layouts are compared by; computing and
  /// exchanges inside blocks alone.
  package func lowerBound(_ layout: SimulatedLayout, microbatchCount total: Int) -> Double {
    if layout.shape.generatorRanks != nil && canSplitRoles {
      return RoleTimeline(sizes) { role, turn in
        let set = layout.layout(of: role)
        return lowerBound(turn, set, microbatchCount: microbatchCount(set, of: total))
      }.step
    }
    let count = microbatchCount(layout, of: total)
    return compared.reduce(0) {
      $0 + $1.share * lowerBound($1.turn, layout, microbatchCount: count)
    }
  }

  /// The largest of
  /// - all microbatches on a stage of mean length,
  /// - all on the shortest stage, with the way there of the first and the way back of the last,
  /// - one microbatch through all stages and all passes that wait for each other.
  private func lowerBound(
    _ turn: SimulatedTurn, _ layout: SimulatedLayout, microbatchCount: Int
  ) -> Double {
    let count = Double(microbatchCount)
    let costs = LayoutCosts(work, layout)
    let forward = turn.passes.map { pass in whole { costs.forward(pass, $0) } }
    let backward = turn.trained.map { trained in whole { costs.backward(trained, $0) } } ?? 0
    let all = forward.reduce(backward, +)
    let stages = Double(layout.stageCount)
    // Of the blocks, the share that every stage has at least.
    let blocks = work.model.blocks.count
    let chunks = layout.stageCount * layout.schedule.chunkCount
    let shortest = Double(blocks / chunks) / Double(max(blocks, 1))
    let isLocal = layout.schedule == .localBlocks
    let ends = whole(isBlock: false) { costs.forward(turn.passes[0], $0) }
    let endsBack = turn.trained == nil ? 0 : 3 * ends
    let fill =
      (stages - 1) * shortest * (forward[0] - ends + (isLocal ? 0 : backward - endsBack))
    let path =
      turn.chain.reduce(0) { $0 + forward[$1] } + (isLocal ? backward / stages : backward)
    let least = count * (all - ends * Double(turn.passes.count) - endsBack) * shortest
    return max(
      count * all / stages, least * Double(layout.schedule.chunkCount) + fill,
      layout.stageCount > 1 ? path : 0)
  }

  /// Seconds of computing and exchanges over ends and blocks, or the ends alone.
  private func whole(isBlock: Bool = true, _ costs: (SimulatedUnit) -> UnitCosts) -> Double {
    func seconds(_ unit: SimulatedUnit) -> Double {
      let cost = costs(unit)
      return cost.computeSeconds + cost.exchangeSeconds
    }
    let ends = seconds(work.model.ends)
    if !isBlock { return ends }
    return work.model.stretches.reduce(ends) { $0 + Double($1.count) * seconds($1.block) }
  }

  private var compared: [(turn: SimulatedTurn, share: Double)] {
    turns.isEmpty ? [(.teach, 1)] : turns
  }

  // MARK: Operations

  /// Operations of a turn for one microbatch over all ranks, none counted twice.
  func operationCount(_ turn: SimulatedTurn) -> Double {
    ([work.model.ends] + work.model.blocks).reduce(0) { sum, unit in
      sum
        + turn.passes.reduce(0) {
          $0 + $1.repeatCount * $1.forwardOperations(unit, tokens: 1, tp: 1)
        }
        + (turn.trained?.backwardOperations(
          unit, tokens: 1, tp: 1, recomputedShare: work.recomputedShare) ?? 0)
    }
  }

  /// The same of the compared step of colocated roles.
  package func operationCount(microbatchCount total: Int) -> Double {
    compared.reduce(0) { $0 + $1.share * Double(total) * operationCount($1.turn) }
  }
}
