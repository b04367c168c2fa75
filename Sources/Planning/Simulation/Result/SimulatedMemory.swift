// Bytes of the fullest rank, by role and category, in closed form.
//
// State: `StateBytes`, over all ranks of a stage that share microbatches, tokens or weights. With split roles either set has the
// networks of its role, and both teach. Activations of a block, with h elements of hidden states over s · t ranks (s: all that share tokens): the input
// alone, h/(s t), where blocks run again on the way back, and one block's working set on top; else
// k h/(s t), k of the model (17 is Megatron's 34 bytes in 16 bits) without scores (they are never whole: attention packs
// keys once and keeps blocks of scores). Times the microbatches that a stage holds.
// ZeRO-3 has one gathered unit, two where the next one comes early, of which a rank has the part that it computes with; ZeRO-2
// and 3 one unit's gradients.
// Source: specs of distributed systems §3, §4 (2205.05198), §5. Coarser than the plan of a layout that the
// worker runs (`CostModel`), which replays its allocations.

package import MeshLayout

/// What a step needs on one rank.
package struct SimulatedMemory: Codable, Equatable, Sendable {
  package let accounts: [PlannedAccount]

  package var byteCount: Int { accounts.reduce(0) { $0 + $1.peakByteCount } }

  /// Which networks a rank has a part of.
  package enum Networks: Sendable {
    /// W, trained.
    case taught
    /// W, frozen, and what is trained on it; the adapter where there is one.
    case distilled(hasAdapter: Bool)
    /// Those of a role alone.
    case role(RankRole)

    fileprivate var hasBase: Bool {
      if case .role(.generator) = self { false } else { true }
    }
    fileprivate var hasAdapter: Bool {
      switch self {
      case .taught: false
      case .distilled(let hasAdapter): hasAdapter
      case .role(let role): role == .score
      }
    }
    fileprivate var hasGenerator: Bool {
      switch self {
      case .taught: false
      case .distilled: true
      case .role(let role): role == .generator
      }
    }
    fileprivate var isTaught: Bool { if case .taught = self { true } else { false } }
  }

  /// Of the stage that needs most.
  /// - Parameters:
  ///   - hasAverage: of W while it is taught, or of the generator.
  ///   - microbatchCount: of the busiest data-parallel rank.
  package static func fullest(
    _ work: SimulatedWork, _ layout: SimulatedLayout, _ networks: Networks, hasAverage: Bool,
    microbatchCount: Int
  ) -> SimulatedMemory {
    (0..<layout.stageCount).map { stage in
      SimulatedMemory(
        work, layout, stage: stage, networks, hasAverage: hasAverage,
        microbatchCount: microbatchCount)
    }.max { $0.byteCount < $1.byteCount } ?? SimulatedMemory(accounts: [])
  }

  private init(accounts: [PlannedAccount]) { self.accounts = accounts }

  private init(
    _ work: SimulatedWork, _ layout: SimulatedLayout, stage: Int, _ networks: Networks,
    hasAverage: Bool, microbatchCount: Int
  ) {
    let zeroStage = layout.zeroStage
    let units = Self.units(work.model, layout, stage: stage)
    let parameterCount = units.reduce(0) { $0 + $1.parameterCount }
    let adapterCount = units.reduce(0) { $0 + $1.adapterCount }
    func trained(_ count: Double, hasAverage: Bool) -> StateBytes.Held {
      work.state.trained(
        parameterCount: count, zeroStage: zeroStage, shardCount: layout.shardCount,
        hasAverage: hasAverage)
    }
    var accounts: [PlannedAccount] = []
    func book(_ role: PlannedRole, _ category: PlannedCategory, _ bytes: Double) {
      guard bytes > 0 else { return }
      accounts.append(
        PlannedAccount(role: role, category: category, peakByteCount: Int(bytes.rounded(.up))))
    }
    func book(_ role: PlannedRole, _ held: StateBytes.Held) {
      book(role, .parameters, held.parameters)
      book(role, .gradients, held.gradients)
      book(role, .optimizer, held.optimizer)
      book(role, .ema, held.average)
    }
    if networks.isTaught {
      book(.base, trained(parameterCount, hasAverage: hasAverage))
    } else if networks.hasBase {
      book(
        .base,
        work.state.frozen(
          parameterCount: parameterCount, zeroStage: zeroStage, shardCount: layout.shardCount))
    }
    if networks.hasAdapter { book(.fake, trained(adapterCount, hasAverage: false)) }
    if networks.hasGenerator {
      book(.generator, trained(parameterCount, hasAverage: hasAverage))
    }
    let role = networks.isTaught ? PlannedRole.base : networks.hasGenerator ? .generator : .fake
    let hidden =
      work.model.hiddenElementCount / Double(layout.shape.sequenceDegree) * work.state.activation
    let blocks = Double(units.count { $0.isBlock })
    let held = Self.heldCount(
      layout, stage: stage, microbatchCount: microbatchCount, isOnePass: networks.isTaught)
    let share = work.recomputedShare
    let kept = share + (1 - share) * work.model.elementsOfBlock
    book(role, .activations, held * blocks * kept * hidden)
    if share > 0 { book(.common, .activations, work.model.elementsOfBlock * hidden) }
    if layout.shardCount > 1 && layout.sumsBlocks {
      let costs = LayoutCosts(work, layout)
      let largest =
        units.map { costs.computedCount($0, network: true, adapter: false) }.max() ?? 0
      let gathered = zeroStage == .parameters ? (layout.overlaps ? 2.0 : 1) : 0
      book(
        .common, .exchange,
        largest * (gathered * work.state.parameter + work.state.gradient))
    }
    self.accounts = accounts
  }

  /// Microbatches whose activations a stage holds at once: with several passes, a wave.
  private static func heldCount(
    _ layout: SimulatedLayout, stage: Int, microbatchCount: Int, isOnePass: Bool
  ) -> Double {
    let (schedule, stageCount) = (layout.schedule, layout.stageCount)
    if stageCount == 1 { return 1 }
    if !isOnePass && schedule.runsWaves {
      return Double(
        schedule.waves(of: microbatchCount, stageCount: stageCount).map(\.count).max() ?? 0)
    }
    let held = schedule.heldCount(
      stage: stage, stageCount: stageCount, microbatchCount: microbatchCount)
    return Double(held) / Double(schedule.chunkCount)
  }

  private static func units(
    _ model: SimulatedModel, _ layout: SimulatedLayout, stage: Int
  ) -> [SimulatedUnit] {
    let chunkCount = layout.schedule.chunkCount
    let blocks = (0..<chunkCount).flatMap { chunk in
      model.blocks[
        evenRange(
          of: model.blocks.count, part: chunk * layout.stageCount + stage,
          partCount: chunkCount * layout.stageCount)]
    }
    return stage == 0 ? [model.ends] + blocks : blocks
  }
}
