// A network's parameters over sizes: the twin of Autodiff's `ParameterSet` and of Training's
// `ShardedParameters`. Blocks come and go as they do there; what is sent for them is counted.

import MeshLayout

/// Where this rank stands among those that hold the networks together.
struct ShardGroupTwin {
  /// Among those that shard a replica.
  let rank: Int
  let rankCount: Int
  let stage: ZeroStage
  let exchange: ExchangeTwin
  /// Nil where there is one replica.
  var replicas: ReplicasTwin?
}

/// Those that own the same of every replica.
struct ReplicasTwin {
  let rank: Int
  let rankCount: Int
  let exchange: ExchangeTwin
}

final class ParametersTwin {
  let ledger: PlannedLedger
  let role: PlannedRole
  let stage: ZeroStage
  let sharding: UnitSharding
  let elementCount: Int
  private let isBlock: [Bool]
  private let group: ShardGroupTwin
  /// All elements, or a shard; stands for parameters that stay in memory.
  let held: PlannedLedger.Block
  private var present: [Int: (block: PlannedLedger.Block, holderCount: Int)] = [:]
  private var open: [Int: PlannedLedger.Block] = [:]
  /// Bytes of the weights kept packed; 0: they are not kept.
  var packedByteCount = 0
  private var packed: PlannedLedger.Block?
  /// Whether gradients are handed over unit by unit now.
  private var handsOver = false

  init(_ ledger: PlannedLedger, role: PlannedRole, units: [PlannedUnit], group: ShardGroupTwin) {
    self.ledger = ledger
    self.role = role
    self.group = group
    let elementCount = units.reduce(0) { $0 + $1.elementCount }
    self.elementCount = elementCount
    isBlock = units.map(\.isBlock)
    // As `ShardGroup.stage(_:of:)`.
    stage = units.count > 1 ? group.stage : min(group.stage, .gradients)
    var end = 0
    let ranges = units.map { unit in
      defer { end += unit.elementCount }
      return end..<end + unit.elementCount
    }
    let sharding = UnitSharding(
      units: group.stage == .optimizer ? [0..<elementCount] : ranges, shardCount: group.rankCount)
    self.sharding = sharding
    held = ledger.allocate(
      stage == .parameters ? sharding.count(of: group.rank) : elementCount, role, .parameters)
  }

  var ownCount: Int { sharding.count(of: group.rank) }
  var isAlone: Bool { group.rankCount == 1 }

  /// Whether entering a block has any effect.
  private var comesAndGoes: Bool { stage == .parameters || handsOver }

  /// The units of a block by its place among the blocks; nil: those outside of blocks.
  private func units(_ block: Int?) -> [Int] {
    guard let block else { return isBlock.indices.filter { !isBlock[$0] } }
    return [isBlock.indices.filter { isBlock[$0] }[block]]
  }

  // MARK: Elements

  func enter(_ block: Int?) {
    guard stage == .parameters else { return }
    for unit in units(block) {
      if present[unit] != nil {
        present[unit]?.holderCount += 1
        continue
      }
      if block != nil {
        for (other, state) in present where isBlock[other] && state.holderCount == 0 {
          present[other] = nil
        }
      }
      present[unit] = (ledger.allocate(sharding.units[unit].count, role, .parameters), 1)
      gather(unit)
    }
  }

  func leave(_ block: Int?) {
    for unit in units(block) { present[unit]?.holderCount -= 1 }
  }

  /// What a pass loads.
  func attendPass() {
    enter(nil)
    for block in isBlock.filter(\.self).indices {
      enter(block)
      leave(block)
    }
    leave(nil)
  }

  func dropUnits() {
    present.removeAll()
    packed = nil
  }

  /// The weights are packed by the first pass that uses them.
  func pack() {
    if packed == nil && packedByteCount > 0 {
      packed = ledger.allocate(packedByteCount / 4, role, .workspace)
    }
  }

  /// This rank's elements of a unit go to all others.
  private func gather(_ unit: Int) {
    let own = sharding.partitions[unit].range(of: group.rank).count
    ledger.updateByteCount += Double(4 * own * (group.rankCount - 1))
  }

  // MARK: Gradients

  /// Elements of a microbatch's partial sum.
  var partialCount: Int { stage >= .gradients ? ownCount : elementCount }

  /// - Returns: what lives until `finishGradients`.
  func beginGradients() -> [PlannedLedger.Block] {
    guard stage >= .gradients else { return [] }
    if isBlock.count == 1 { return [ledger.allocate(elementCount, role, .gradients)] }
    handsOver = true
    return []
  }

  func finishGradients() {
    if stage >= .gradients, !handsOver { reduceScatter() }
    handsOver = false
  }

  func openGradients(_ block: Int?) {
    guard handsOver else { return }
    for unit in units(block) {
      open[unit] = ledger.allocate(sharding.units[unit].count, role, .gradients)
    }
  }

  func closeGradients(_ block: Int?) {
    guard handsOver else { return }
    for unit in units(block) {
      reduceScatter(unit)
      open[unit] = nil
    }
  }

  /// Sums the gradients of all ranks.
  func reduceScatter() {
    for unit in sharding.units.indices { reduceScatter(unit) }
  }

  private func reduceScatter(_ unit: Int) {
    let partition = sharding.partitions[unit]
    group.exchange.reduceScatter(partition)
    ledger.updateByteCount += Double(4 * (partition.count - partition.range(of: group.rank).count))
  }

  /// Sums own gradients over replicas.
  func sumOverReplicas() {
    guard let replicas = group.replicas else { return }
    let partition = ShardPartition(count: ownCount, shardCount: replicas.rankCount)
    let ownPart = partition.range(of: replicas.rank).count
    let part = ledger.allocate(ownPart, role, .exchange)
    replicas.exchange.reduceScatter(partition)
    let others = ownCount - ownPart + ownPart * (replicas.rankCount - 1)
    ledger.updateByteCount += Double(4 * others)
    withExtendedLifetime(part) {}
  }

  /// Makes own elements known to whoever holds them.
  func publish() {
    dropUnits()
    guard stage != .parameters else { return }
    for unit in sharding.units.indices { gather(unit) }
  }

  // MARK: Blocks

  /// Runs a block of some sets, as `Tape.inBlock` does.
  static func inBlock<Result>(
    _ block: Int?, of sets: [ParametersTwin], on tape: TapeTwin, isDifferentiated: Bool,
    _ body: () -> Result
  ) -> Result {
    let sets = sets.filter(\.comesAndGoes)
    guard !sets.isEmpty else { return body() }
    let turnsBack = tape.isRecording && isDifferentiated
    for set in sets { set.enter(block) }
    if turnsBack {
      tape.onWayBack {
        for set in sets.reversed() {
          set.closeGradients(block)
          set.leave(block)
        }
      }
    }
    defer {
      for set in sets.reversed() { set.leave(block) }
      if turnsBack {
        tape.onWayBack {
          for set in sets {
            set.enter(block)
            set.openGradients(block)
          }
        }
      }
    }
    return body()
  }
}
