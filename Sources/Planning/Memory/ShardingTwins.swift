// What sharded state and gradient sums hold, over sizes: the twins of Training/Sharding and of Exchange's
// partial sums.

import MeshLayout

/// The exchange of one rank: its pool of partial sums outlives the calls.
final class ExchangeTwin {
  private let ledger: PlannedLedger
  private let rank: Int
  private let bucketByteCount: Int
  private var partials: [PlannedLedger.Block] = []

  init(_ ledger: PlannedLedger, rank: Int, bucketByteCount: Int) {
    self.ledger = ledger
    self.rank = rank
    self.bucketByteCount = bucketByteCount
  }

  /// Elements of a shard's piece of a bucket: an even part of the bucket, at least one block.
  static func pieceCount(_ partition: ShardPartition, bucketByteCount: Int) -> Int {
    let even = bucketByteCount / 4 / partition.shardCount
    let longest = partition.longestShardCount
    return max(min(even, longest), min(partition.blockLength, longest))
  }

  /// Buckets of so many elements.
  func bucketCount(elementCount: Int) -> Int {
    (4 * elementCount + bucketByteCount - 1) / bucketByteCount
  }

  /// Room for a piece of a bucket.
  func gatherPart(_ partition: ShardPartition) { partials.append(takeRoom(partition)) }

  /// The same, and partial sums in the tree over pairs of ranks, those of neighborhoods first.
  func reducePart(_ unit: SlicedUnit) {
    let room = takeRoom(unit.partition)
    if !unit.partition.range(of: rank).isEmpty {
      sum(
        unit.partition.shardCount / unit.degree * unit.pairCount, pieceCount: room.count,
        neighborhood: unit.pairCount)
    }
    partials.append(room)
  }

  private func takeRoom(_ partition: ShardPartition) -> PlannedLedger.Block {
    let pieceCount = Self.pieceCount(partition, bucketByteCount: bucketByteCount)
    partials = partials.filter { $0.count == pieceCount }
    return takePartial(pieceCount)
  }

  private func takePartial(_ pieceCount: Int) -> PlannedLedger.Block {
    partials.popLast() ?? ledger.allocate(pieceCount, .common, .exchange)
  }

  /// Partial sums live in the tree over ranks: at most log₂(size) + 2 pieces.
  func reduceScatter(_ partition: ShardPartition) {
    let pieceCount = Self.pieceCount(partition, bucketByteCount: bucketByteCount)
    partials = partials.filter { $0.count == pieceCount }
    if partition.shardCount == 1 || partition.range(of: rank).isEmpty { return }
    sum(partition.shardCount, pieceCount: pieceCount)
  }

  private func sum(_ termCount: Int, pieceCount: Int, neighborhood: Int = 1) {
    let sum = treeReduce(
      ofEqual: neighborhood, count: termCount, operand: { _ in takePartial(pieceCount) },
      combine: { left, right in
        partials.append(right)
        return left
      })
    partials.append(sum)
  }
}

/// AdamW with its state sharded: moments, perhaps an average, and what a step holds meanwhile.
final class OptimizerTwin {
  let parameters: ParametersTwin
  private let state: [PlannedLedger.Block]
  /// Parameter, gradient and moments are read, all but the gradient written (28), the average both (8); the norm
  /// reads gradients once more (4).
  private let byteCountPerElement: Int

  init(_ parameters: ParametersTwin, hasAverage: Bool) {
    self.parameters = parameters
    func shard(_ category: PlannedCategory) -> PlannedLedger.Block {
      parameters.ledger.allocate(parameters.ownCount, parameters.role, category)
    }
    state = [shard(.optimizer), shard(.optimizer)] + (hasAverage ? [shard(.ema)] : [])
    byteCountPerElement = hasAverage ? 40 : 32
  }

  func step() {
    parameters.ledger.work.optimizerByteCount += Double(byteCountPerElement * parameters.ownCount)
    if parameters.isAlone {
      parameters.sumOverReplicas()
      return parameters.dropUnits()
    }
    func shard() -> PlannedLedger.Block {
      parameters.ledger.allocate(parameters.ownCount, parameters.role, .exchange)
    }
    var held: [PlannedLedger.Block] = []
    if parameters.stage == .optimizer {
      held.append(shard())
      parameters.reduceScatter()
    }
    parameters.sumOverReplicas()
    if parameters.stage < .parameters { held.append(shard()) }
    parameters.publish()
    withExtendedLifetime(held) {}
  }
}

/// The same with microbatches in flight on a stage: a partial sum is there from a microbatch's way back on.
/// - Returns: the sums, and the turns of the stage.
func microbatchSum(
  _ ledger: PlannedLedger, of targets: [ParametersTwin], microbatchCount: Int, on stage: StageTwin,
  _ passes: PassCount, _ body: @escaping (_ microbatch: Int) -> Void
) -> (sums: [PlannedLedger.Block], turns: [StageTurn]) {
  var tree = ArrivalTree<[PlannedLedger.Block]>(count: microbatchCount)
  targets.forEach { $0.beginInFlight() }
  let turns = stage.run(microbatchCount, passes, ledger) { microbatch in
    body(microbatch)
    tree.insert(targets.compactMap { $0.takePartial() }, at: microbatch) { left, _ in
      ledger.countSum(of: left)
      return left
    }
  }
  targets.forEach { $0.endInFlight() }
  return (tree.result ?? [], turns)
}

/// Gradient sums over microbatches: while microbatch i is computed, the partial sums of the i before
/// it live, one for each one in the binary digits of i, and its own.
func microbatchSum(
  _ ledger: PlannedLedger, of targets: [ParametersTwin], microbatchCount: Int,
  _ body: (_ microbatch: Int) -> Void
) -> [PlannedLedger.Block] {
  var counter = BinaryCounter<[PlannedLedger.Block]>()
  let combine = { (left: [PlannedLedger.Block], right: [PlannedLedger.Block]) in
    ledger.countSum(of: left)
    return left
  }
  for microbatch in 0..<microbatchCount {
    let partials = targets.map { ledger.allocate($0.partialCount, $0.role, .gradients) }
    let bound = targets.map { $0.beginGradients() }
    body(microbatch)
    targets.forEach { $0.finishGradients() }
    withExtendedLifetime(bound) {}
    counter.push(partials, combine: combine)
  }
  return counter.finish(combine: combine) ?? []
}

extension PlannedLedger {
  /// Something as large is added to these: both are read, one is written.
  fileprivate func countSum(of blocks: [Block]) {
    work.summedByteCount += Double(12 * blocks.reduce(0) { $0 + $1.count })
  }
}
