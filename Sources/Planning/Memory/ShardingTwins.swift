// What data parallelism with sharded state holds, over sizes: the twins of Training/Sharding and of
// Exchange's partial sums.

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

  /// Partial sums live in the tree over ranks: at most log₂(size) + 2 pieces.
  func reduceScatter(_ partition: ShardPartition) {
    let pieceCount = Self.pieceCount(partition, bucketByteCount: bucketByteCount)
    partials = partials.filter { $0.count == pieceCount }
    if partition.shardCount == 1 || partition.range(of: rank).isEmpty { return }
    let sum = treeReduce(
      count: partition.shardCount,
      operand: { _ in partials.popLast() ?? ledger.allocate(pieceCount, .common, .exchange) },
      combine: { left, right in
        partials.append(right)
        return left
      })
    partials.append(sum)
  }
}

/// AdamW with its state sharded: moments, perhaps an average, and, on several ranks, two shards while it steps.
final class OptimizerTwin {
  private let ledger: PlannedLedger
  private let exchange: ExchangeTwin
  private let role: PlannedRole
  private let partition: ShardPartition
  private let shardCount: Int
  private let state: [PlannedLedger.Block]

  init(
    _ ledger: PlannedLedger, exchange: ExchangeTwin, role: PlannedRole, elementCount: Int,
    rank: Int, rankCount: Int, hasAverage: Bool
  ) {
    self.ledger = ledger
    self.exchange = exchange
    self.role = role
    partition = ShardPartition(count: elementCount, shardCount: rankCount)
    let count = partition.range(of: rank).count
    shardCount = count
    state =
      (0..<2).map { _ in ledger.allocate(count, role, .optimizer) }
      + (hasAverage ? [ledger.allocate(count, role, .ema)] : [])
  }

  func step() {
    if partition.shardCount == 1 { return }
    let gradient = ledger.allocate(shardCount, role, .exchange)
    exchange.reduceScatter(partition)
    let updated = ledger.allocate(shardCount, role, .exchange)
    withExtendedLifetime((gradient, updated)) {}
  }
}

/// A network whose gradient is summed.
struct TargetTwin {
  let elementCount: Int
  let role: PlannedRole
}

/// Gradient sums over microbatches: while microbatch i is computed, the partial sums of the i before
/// it live, one for each one in the binary digits of i, and its own.
func microbatchSum(
  _ ledger: PlannedLedger, of targets: [TargetTwin], microbatchCount: Int,
  _ body: (_ microbatch: Int) -> Void
) -> [PlannedLedger.Block] {
  var counter = BinaryCounter<[PlannedLedger.Block]>()
  let combine = { (left: [PlannedLedger.Block], right: [PlannedLedger.Block]) in left }
  for microbatch in 0..<microbatchCount {
    let partials = targets.map { ledger.allocate($0.elementCount, $0.role, .gradients) }
    body(microbatch)
    counter.push(partials, combine: combine)
  }
  return counter.finish(combine: combine) ?? []
}
