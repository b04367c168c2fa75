// A network's parameters over sizes: the twin of Autodiff's `ParameterSet` and of Training's
// `ShardedParameters`. Blocks come and go as they do there; what is sent for them is counted.

import MeshLayout

/// Where this rank stands among those that hold the networks together.
struct ShardGroupTwin {
  /// Among those that shard a replica.
  let rank: Int
  let rankCount: Int
  let zeroStage: ZeroStage
  let exchange: ExchangeTwin
  /// How many neighboring ranks cut the weights of blocks among them.
  var tensorDegree = 1
  /// The ranks of its pipeline stage; nil where there is one.
  var stage: StageShardsTwin?
  /// What loads blocks and what sums their gradients beside the computation; nil where nothing does.
  var besides: (loads: ExchangeTwin, sums: ExchangeTwin)?
  /// Nil where there is one replica.
  var replicas: ReplicasTwin?
}

/// Those of a replica that run the same stage of a pipeline.
struct StageShardsTwin {
  /// Stages of the pipeline.
  let count: Int
  let rank: Int
  let rankCount: Int
  let exchange: ExchangeTwin
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
  /// Empty where weights are not cut.
  private let slicedUnits: [SlicedUnit]
  /// All elements, or a shard; stands for parameters that stay in memory.
  let held: PlannedLedger.Block
  private typealias PresentUnit = (
    block: PlannedLedger.Block, extent: ExtentTwin, holderCount: Int
  )
  private var present: [Int: PresentUnit] = [:]
  private var open: [Int: PlannedLedger.Block] = [:]
  /// A gradient on its way to its owners.
  private var leaving: PlannedLedger.Block?
  /// Bytes of the weights kept packed; 0: they are not kept.
  var packedByteCount = 0
  private var packed: PlannedLedger.Block?
  /// Whether gradients are handed over unit by unit now.
  private var handsOver = false
  /// A microbatch's partial sum, in a pipeline from its way back on.
  private var partial: PlannedLedger.Block?

  init(_ ledger: PlannedLedger, role: PlannedRole, units: [PlannedUnit], group: ShardGroupTwin) {
    self.ledger = ledger
    self.role = role
    self.group = group
    let elementCount = units.reduce(0) { $0 + $1.elementCount }
    self.elementCount = elementCount
    isBlock = units.map(\.isBlock)
    // As `ShardGroup.stage(of:)`.
    let comesAsPart = group.tensorDegree > 1 && units.contains(where: \.isBlock)
    stage =
      units.count > 1 || comesAsPart ? group.zeroStage : min(group.zeroStage, .gradients)
    let sharding = Self.sharding(
      of: units, rankCount: group.rankCount, zeroStage: group.zeroStage,
      stageCount: group.stage?.count ?? 1)
    self.sharding = sharding
    slicedUnits =
      group.tensorDegree == 1 || stage != .parameters
      ? []
      : zip(units, sharding.partitions).map {
        SlicedUnit($0.tensors, partition: $1.amongOwners, degree: group.tensorDegree)
      }
    held = ledger.allocate(
      stage == .parameters ? sharding.count(of: group.rank) : elementCount, role, .parameters)
  }

  var ownCount: Int { sharding.count(of: group.rank) }
  var isAlone: Bool { group.rankCount == 1 }

  /// Whether entering a block has any effect.
  private var comesAndGoes: Bool { stage == .parameters || handsOver }

  /// Who owns what, as `ShardGroup.sharding(of:)`.
  static func sharding(
    of units: [PlannedUnit], rankCount: Int, zeroStage: ZeroStage, stageCount: Int
  ) -> UnitSharding {
    let elementCount = units.reduce(0) { $0 + $1.elementCount }
    guard zeroStage > .optimizer else {
      return UnitSharding(units: [0..<elementCount], shardCount: rankCount)
    }
    var end = 0
    let ranges = units.map { unit in
      defer { end += unit.elementCount }
      return end..<end + unit.elementCount
    }
    guard stageCount > 1 else {
      return UnitSharding(units: ranges, shardCount: rankCount)
    }
    let size = rankCount / stageCount
    let stages = StageCut.stages(
      of: units.map { ($0.isBlock, $0.isOutput) }, stageCount: stageCount)
    return UnitSharding(
      units: ranges, shardCount: rankCount,
      owners: stages.map { $0 * size..<($0 + 1) * size })
  }

  /// The units of a block by its place among the blocks; nil: those outside of blocks.
  private func units(_ block: Int?, _ extent: ExtentTwin) -> [Int] {
    let units =
      if let block {
        [isBlock.indices.filter { isBlock[$0] }[block]]
      } else {
        isBlock.indices.filter { !isBlock[$0] }
      }
    return extent.isOfStage ? units.filter(isInStage) : units
  }

  private func isInStage(_ unit: Int) -> Bool {
    sharding.partitions[unit].owners.contains(group.rank)
  }

  // MARK: Elements

  /// Draws all elements, unit by unit where the set is not whole.
  func initialize() {
    guard stage == .parameters else { return }
    dropUnits()
    for unit in sharding.units { _ = ledger.allocate(unit.count, role, .parameters) }
  }

  func enter(_ block: Int?, _ extent: ExtentTwin = .whole, isWayBack: Bool = false) {
    guard stage == .parameters else { return }
    for unit in units(block, extent) {
      if present[unit]?.extent == extent {
        present[unit]?.holderCount += 1
        continue
      }
      present[unit] = nil
      if block != nil { dropIdleBlocks() }
      present[unit] = (
        ledger.allocate(memoryCount(unit, extent), role, .parameters), extent, 1
      )
      gather(unit, extent)
    }
    if let block { loadAhead(of: block, extent, isWayBack: isWayBack) }
  }

  private func dropIdleBlocks(but kept: Int? = nil) {
    for (other, state) in present
    where isBlock[other] && other != kept && state.holderCount == 0 {
      present[other] = nil
    }
  }

  /// As `ParameterSet.loadAhead`.
  private func loadAhead(of block: Int, _ extent: ExtentTwin, isWayBack: Bool) {
    guard let besides = group.besides, extent.isOfStage || group.stage == nil else { return }
    let next = block + (isWayBack ? -1 : 1)
    guard (0..<isBlock.count(where: \.self)).contains(next),
      let unit = units(next, extent).first
    else { return }
    dropIdleBlocks(but: unit)
    if present[unit]?.extent == extent { return }
    present[unit] = nil
    present[unit] = (
      ledger.allocate(memoryCount(unit, extent), role, .parameters), extent, 0
    )
    besideComputing { gather(unit, extent, by: besides.loads) }
  }

  /// Counts what `body` sends as travelling while something is computed.
  private func besideComputing(_ body: () -> Void) {
    let (byteCount, messageCount) = (ledger.work.updateByteCount, ledger.work.updateMessageCount)
    body()
    ledger.work.besideUpdateByteCount += ledger.work.updateByteCount - byteCount
    ledger.work.besideUpdateMessageCount += ledger.work.updateMessageCount - messageCount
  }

  /// Elements of a unit in memory.
  private func memoryCount(_ unit: Int, _ extent: ExtentTwin) -> Int {
    extent.isPart ? slicedUnits[unit].slice(of: group.rank).count : sharding.units[unit].count
  }

  func leave(_ block: Int?, _ extent: ExtentTwin = .whole) {
    for unit in units(block, extent) { present[unit]?.holderCount -= 1 }
  }

  /// What a pass loads.
  func attendPass() {
    let outside: ExtentTwin = group.stage == nil ? .whole : .stage
    let isCut = group.tensorDegree > 1
    let extent = isCut ? group.stage == nil ? .part : .partOfStage : outside
    enter(nil, outside)
    for block in 0..<isBlock.count(where: \.self) {
      enter(block, extent)
      leave(block, extent)
    }
    leave(nil, outside)
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

  /// The ranks that share a unit that is cut: those of the pipeline stage, or of the replica.
  private var sharers: (exchange: ExchangeTwin, rank: Int, rankCount: Int) {
    group.stage.map { ($0.exchange, $0.rank, $0.rankCount) }
      ?? (group.exchange, group.rank, group.rankCount)
  }

  /// This rank's elements of a unit go to all others, or to each what it computes with.
  private func gather(
    _ unit: Int, _ extent: ExtentTwin = .whole, by line: ExchangeTwin? = nil
  ) {
    if extent.isPart {
      let (exchange, rank, rankCount) = sharers
      (line ?? exchange).gatherPart(slicedUnits[unit].partition)
      ledger.work.updateByteCount += Double(4 * slicedUnits[unit].loadCount(from: rank))
      countCopies(slicedUnits[unit].sharedCount(owner: rank, reader: rank))
      countMessages(unit, peerCount: rankCount - 1)
      return
    }
    let own = sharding.partitions[unit].range(of: group.rank).count
    let readerCount = extent == .stage ? group.stage?.rankCount ?? 1 : group.rankCount
    ledger.work.updateByteCount += Double(4 * own * (readerCount - 1))
    countCopies(own)
    countMessages(unit, peerCount: readerCount - 1)
  }

  /// What lines that load parts of blocks keep from earlier passes, whose first block is not loaded ahead.
  func leaveRooms() {
    let blocks = sharding.units.indices.filter {
      isBlock[$0] && (group.stage == nil || isInStage($0))
    }
    guard stage == .parameters, group.tensorDegree > 1, let first = blocks.first else { return }
    sharers.exchange.gatherPart(slicedUnits[first].partition)
    if blocks.count > 1 { group.besides?.loads.gatherPart(slicedUnits[first].partition) }
  }

  // MARK: Gradients

  /// Elements of a microbatch's partial sum.
  var partialCount: Int { stage >= .gradients ? ownCount : elementCount }

  /// Whether gradients leave unit by unit.
  private var sumsUnits: Bool {
    stage == .parameters || stage == .gradients && isBlock.count > 1
  }

  /// - Returns: what lives until `finishGradients`.
  func beginGradients() -> [PlannedLedger.Block] {
    guard stage >= .gradients else { return [] }
    guard sumsUnits else { return [ledger.allocate(elementCount, role, .gradients)] }
    handsOver = true
    return []
  }

  func finishGradients() {
    if stage >= .gradients, !handsOver { reduceScatter() }
    handsOver = false
    leaving = nil
  }

  func openGradients(_ block: Int?, _ extent: ExtentTwin = .whole) {
    guard handsOver else { return }
    for unit in units(block, extent) {
      open[unit] = ledger.allocate(memoryCount(unit, extent), role, .gradients)
    }
  }

  func closeGradients(_ block: Int?, _ extent: ExtentTwin = .whole) {
    guard handsOver else { return }
    for unit in units(block, extent) {
      if group.stage != nil { makePartial() }
      leaving = nil
      reduceScatter(unit)
      if group.besides != nil { leaving = open[unit] }
      open[unit] = nil
    }
  }

  private func makePartial() {
    if partial == nil { partial = ledger.allocate(partialCount, role, .gradients) }
  }

  /// From now on gradients of several microbatches in flight are handed over, one after the other.
  func beginInFlight() { handsOver = true }
  func endInFlight() { handsOver = false }

  /// The partial sum of the microbatch whose way back has ended.
  func takePartial() -> PlannedLedger.Block? {
    makePartial()
    leaving = nil
    defer { partial = nil }
    return partial
  }

  /// Sums the gradients of all ranks, or of the stage's.
  func reduceScatter() {
    for unit in sharding.units.indices where group.stage == nil || isInStage(unit) {
      reduceScatter(unit)
    }
  }

  private func reduceScatter(_ unit: Int) {
    guard sumsUnits, let line = group.besides?.sums else { return reduceScatter(unit, by: nil) }
    besideComputing { reduceScatter(unit, by: line) }
  }

  private func reduceScatter(_ unit: Int, by beside: ExchangeTwin?) {
    let partition = sharding.partitions[unit]
    if !slicedUnits.isEmpty {
      let (exchange, rank, rankCount) = sharers
      (beside ?? exchange).reducePart(slicedUnits[unit])
      ledger.work.updateByteCount += Double(4 * slicedUnits[unit].gradientCount(from: rank))
      countCopies(slicedUnits[unit].sharedCount(owner: rank, reader: rank))
      countMessages(unit, peerCount: rankCount - 1)
      return
    }
    if let stage = group.stage {
      let partition = partition.amongOwners
      let ownCount = partition.range(of: stage.rank).count
      (beside ?? stage.exchange).reduceScatter(partition)
      ledger.work.updateByteCount += Double(4 * (partition.count - ownCount))
      countCopies(ownCount)
      countMessages(unit, peerCount: stage.rankCount - 1)
      return
    }
    (beside ?? group.exchange).reduceScatter(partition)
    let ownCount = partition.range(of: group.rank).count
    ledger.work.updateByteCount += Double(4 * (partition.count - ownCount))
    countCopies(ownCount)
    countMessages(unit, peerCount: group.rankCount - 1)
  }

  /// At stage 3, elements of blocks that come from the own shard, or go there, are read and written.
  private func countCopies(_ elementCount: Int) {
    if stage == .parameters { ledger.work.copiedByteCount += Double(8 * elementCount) }
  }

  /// A message to each peer for every bucket of a unit.
  private func countMessages(_ unit: Int, peerCount: Int) {
    let bucketCount = group.exchange.bucketCount(elementCount: sharding.units[unit].count)
    ledger.work.updateMessageCount += Double(peerCount * bucketCount)
  }

  /// Sums own gradients over replicas.
  func sumOverReplicas() {
    guard let replicas = group.replicas else { return }
    let partition = ShardPartition(count: ownCount, shardCount: replicas.rankCount)
    let ownPart = partition.range(of: replicas.rank).count
    let part = ledger.allocate(ownPart, role, .exchange)
    replicas.exchange.reduceScatter(partition)
    let others = ownCount - ownPart + ownPart * (replicas.rankCount - 1)
    ledger.work.updateByteCount += Double(4 * others)
    ledger.work.updateMessageCount += Double(
      2 * (replicas.rankCount - 1) * replicas.exchange.bucketCount(elementCount: ownCount))
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
    _ block: Int?, of sets: [ParametersTwin], extent: ExtentTwin = .whole, on tape: TapeTwin,
    isDifferentiated: Bool, _ body: () -> Result
  ) -> Result {
    let sets = sets.filter(\.comesAndGoes)
    guard !sets.isEmpty else { return body() }
    let turnsBack = tape.isRecording && isDifferentiated
    for set in sets { set.enter(block, extent, isWayBack: tape.isRecomputing) }
    if turnsBack {
      tape.onWayBack {
        for set in sets.reversed() {
          set.closeGradients(block, extent)
          set.leave(block, extent)
        }
      }
    }
    defer {
      for set in sets.reversed() { set.leave(block, extent) }
      if turnsBack {
        tape.onWayBack {
          for set in sets {
            set.enter(block, extent, isWayBack: true)
            set.openGradients(block, extent)
          }
        }
      }
    }
    return body()
  }
}
