// Bytes of the fullest rank, by role and category, in closed form.
//
// State: `StateBytes`. Activations of a block, with h elements of hidden states over s · t ranks (s: all that share tokens): the input
// alone, h/(s t), where blocks run again on the way back, and one block's working set on top; else
// k h/(s t), k of the model (17 is Megatron's 34 bytes in 16 bits) without scores (they are never whole: attention packs
// keys once and keeps blocks of scores). Times the microbatches that a stage holds.
// ZeRO-3 has one gathered unit, two where the next one comes early; ZeRO-2 and 3 one unit's gradients.
// Source: specs of distributed systems §3, §4 (2205.05198), §5. Coarser than the plan of a layout that the
// worker runs (`CostModel`), which replays its allocations.

import MeshLayout

/// What a step needs on one rank.
package struct SimulatedMemory: Codable, Equatable, Sendable {
  package let accounts: [PlannedAccount]

  package var byteCount: Int { accounts.reduce(0) { $0 + $1.peakByteCount } }

  /// Of the stage that needs most.
  /// - Parameters:
  ///   - trains: whether W is trained (teach) or frozen under adapter and generator (distill).
  ///   - microbatchCount: of the busiest data-parallel rank.
  package static func fullest(
    _ work: SimulatedWork, _ layout: SimulatedLayout, trainsBase: Bool, hasAverage: Bool,
    hasAdapter: Bool, microbatchCount: Int
  ) -> SimulatedMemory {
    (0..<layout.stageCount).map { stage in
      SimulatedMemory(
        work, layout, stage: stage, trainsBase: trainsBase, hasAverage: hasAverage,
        hasAdapter: hasAdapter, microbatchCount: microbatchCount)
    }.max { $0.byteCount < $1.byteCount } ?? SimulatedMemory(accounts: [])
  }

  private init(accounts: [PlannedAccount]) { self.accounts = accounts }

  private init(
    _ work: SimulatedWork, _ layout: SimulatedLayout, stage: Int, trainsBase: Bool,
    hasAverage: Bool, hasAdapter: Bool, microbatchCount: Int
  ) {
    let (tp, zeroStage) = (Double(layout.shape[.tp]), layout.zeroStage)
    let units = Self.units(work.model, layout, stage: stage)
    let parameterCount = units.reduce(0) { $0 + $1.parameterCount } / tp
    let adapterCount = units.reduce(0) { $0 + $1.adapterCount } / tp
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
    if trainsBase {
      book(.base, trained(parameterCount, hasAverage: hasAverage))
    } else {
      book(
        .base,
        work.state.frozen(
          parameterCount: parameterCount, zeroStage: zeroStage, shardCount: layout.shardCount))
      if hasAdapter { book(.fake, trained(adapterCount, hasAverage: false)) }
      book(.generator, trained(parameterCount, hasAverage: hasAverage))
    }
    let role = trainsBase ? PlannedRole.base : .generator
    let hidden =
      work.model.hiddenElementCount / Double(layout.tokenDegree) / tp * work.state.activation
    let blocks = Double(units.count { $0.isBlock })
    let held =
      layout.stageCount == 1
      ? 1
      : Double(
        layout.schedule.heldCount(
          stage: stage, stageCount: layout.stageCount, microbatchCount: microbatchCount))
        / Double(layout.schedule.chunkCount)
    let share = work.recomputedShare
    let kept = share + (1 - share) * work.model.elementsOfBlock
    book(role, .activations, held * blocks * kept * hidden)
    if share > 0 { book(.common, .activations, work.model.elementsOfBlock * hidden) }
    if layout.shardCount > 1 && zeroStage >= 2 {
      let largest = (units.map(\.parameterCount).max() ?? 0) / tp
      let gathered = zeroStage >= 3 ? (layout.overlaps ? 2.0 : 1) : 0
      book(
        .common, .exchange,
        largest * (gathered * work.state.parameter + work.state.gradient))
    }
    self.accounts = accounts
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
