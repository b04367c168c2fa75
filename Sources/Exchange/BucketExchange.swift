// One-hop exchange of flat vectors, bucket by bucket: each rank codes its pieces once, sends each
// to its owner, and the owner sums in the fixed tree over ranks; shards come back by all-gather.
//
// Goals: 1 the same bits for every codec and arrival order, 2 bounded memory, 3 overlap: bucket
// i + 1 is coded while bucket i is on its way, and an exchange that is started goes on beside other work, see
// BucketRun.swift.

import Basics
import Compression
package import DenseKernels
package import MeshLayout
import MessagePassing
package import ProcessMesh

/// Moves the words of one group of ranks. Used from the thread that owns the transport.
package final class BucketExchange {
  /// The group over which all operations are collective.
  package let transport: any Transport
  package let configuration: ExchangeConfiguration
  /// What has been sent since the last `take()`.
  package var statistics = ExchangeStatistics()
  private var policy: ExchangePolicy
  private let allocate: (Int) -> Buffer<Float>
  private let encoder = MessageEncoder()
  private let decoder = MessageDecoder()
  /// Free partial sums, of equal length.
  var partials: [Buffer<Float>] = []
  /// What was started and is not through, in the order of the starts; the first one is on its way.
  private var queue: [BucketRun] = []

  /// - Parameters:
  ///   - configuration: must agree on all ranks.
  ///   - allocate: gives memory for partial sums (at most `log₂(size) + 2` pieces of a bucket), so
  ///     that the caller can book it; default: the heap.
  package init(
    transport: any Transport, configuration: ExchangeConfiguration = ExchangeConfiguration(),
    allocate: @escaping (Int) -> Buffer<Float> = { Buffer(zeroed: $0) }
  ) {
    let problems = configuration.validate()
    require(problems.isEmpty, problems.joined(separator: "; "))
    self.transport = transport
    self.configuration = configuration
    self.allocate = allocate
    policy = ExchangePolicy(coding: configuration.codec, isOneNode: transport.isOneNode)
  }

  /// The latest choice of codec for each kind of traffic, with its reason.
  package var decisions: [ExchangeDecision] { policy.decisions }

  // MARK: Reduce-scatter

  /// Sums the flat vectors of all ranks; each rank gets the sum of its shard, added up in the fixed
  /// tree over ranks. `flat` is only read.
  ///
  /// - Collective: over the group; partition, configuration and order of calls must agree.
  /// - Precondition: `flat` and `shard` have the partition's lengths and do not overlap.
  /// - Throws: what the transport throws; `CompressionError` when a message is damaged.
  /// - Cost: sends (size - 1) / size of the vector before coding; holds two buckets.
  package func reduceScatter(
    _ flat: Buffer<Float>, partition: ShardPartition, into shard: Buffer<Float>,
    kind: TrafficKind = .gradients
  ) throws {
    try runAlone(reduction(flat, partition: partition, into: shard, kind: kind))
  }

  /// The same beside other work: both buffers belong to it until it is finished.
  package func startReduceScatter(
    _ flat: Buffer<Float>, partition: ShardPartition, into shard: Buffer<Float>,
    kind: TrafficKind = .gradients
  ) throws -> BucketRun {
    try start(reduction(flat, partition: partition, into: shard, kind: kind))
  }

  private func reduction(
    _ flat: Buffer<Float>, partition: ShardPartition, into shard: Buffer<Float>,
    kind: TrafficKind
  ) -> BucketRun {
    requireShard(shard, partition, transport)
    requireFlat(flat, partition)
    let plan = BucketPlan(partition, byteCount: configuration.bucketByteCount)
    if transport.size == 1 {
      return run(.reduceScatter, kind, bucketCount: 0, completion: { shard.copy(from: flat) })
    }
    return run(
      .reduceScatter, kind, bucketCount: plan.bucketCount,
      prepare: { [unowned self] in reservePartials(plan, termCount: transport.size) },
      code: { [unowned self] bucket, sent in
        .toEach(
          (0..<transport.size).map { peer in
            peer == transport.rank
              ? Payload([])
              : encode(
                flat[plan.piece(bucket, of: peer)], .reduceScatter, kind, peerCount: 1, &sent)
          })
      },
      finish: { [unowned self] bucket, payloads, received in
        let own = plan.piece(bucket, of: transport.rank)
        if own.isEmpty { return }
        let sum = try treeReduce(
          count: transport.size,
          operand: { peer throws -> Buffer<Float> in
            let partial = takePartial(count: plan.pieceWordCount)
            let words = partial[0..<own.count]
            if peer == transport.rank {
              words.copy(from: flat[own])
            } else {
              try decode(payloads[peer], from: peer, kind, bucket, into: words, &received)
            }
            return partial
          },
          combine: { left, right throws -> Buffer<Float> in
            Float.add(1, right[0..<own.count], to: left[0..<own.count])
            partials.append(right)
            return left
          })
        shard[plan.localPiece(bucket, of: transport.rank)].copy(from: sum[0..<own.count])
        partials.append(sum)
      })
  }

  // MARK: All-gather

  /// Puts the shards of all ranks into `flat`, on every rank.
  ///
  /// - Parameter flatIsBase: `flat` holds the words that the last gather left in it, so that only
  ///   differences need travel. That all ranks hold the same base is checked by a checksum; if they
  ///   do not (after a resume, say), all words are sent.
  /// - Collective: over the group; all arguments but the buffers must agree.
  /// - Precondition: `flat` and `shard` have the partition's lengths.
  /// - Throws: what the transport throws; `CompressionError` when a message is damaged.
  /// - Cost: sends (size - 1) times the own shard before coding; holds two buckets.
  package func allGather(
    _ shard: Buffer<Float>, partition: ShardPartition, into flat: Buffer<Float>,
    kind: TrafficKind = .parameters, flatIsBase: Bool = false
  ) throws {
    try finishAll()
    let isDelta = try flatIsBase && policy.mayCode && transport.size > 1 && isCommonBase(flat)
    try runAlone(gather(shard, partition: partition, into: flat, kind: kind, isDelta: isDelta))
  }

  /// The same beside other work: both buffers belong to it until it is finished.
  package func startAllGather(
    _ shard: Buffer<Float>, partition: ShardPartition, into flat: Buffer<Float>,
    kind: TrafficKind = .parameters
  ) throws -> BucketRun {
    try start(gather(shard, partition: partition, into: flat, kind: kind, isDelta: false))
  }

  private func gather(
    _ shard: Buffer<Float>, partition: ShardPartition, into flat: Buffer<Float>,
    kind: TrafficKind, isDelta: Bool
  ) -> BucketRun {
    requireShard(shard, partition, transport)
    requireFlat(flat, partition)
    let plan = BucketPlan(partition, byteCount: configuration.bucketByteCount)
    if transport.size == 1 {
      return run(.allGather, kind, bucketCount: 0, completion: { flat.copy(from: shard) })
    }
    return run(
      .allGather, kind, bucketCount: plan.bucketCount,
      code: { [unowned self] bucket, sent in
        let own = flat[plan.piece(bucket, of: transport.rank)]
        let words = shard[plan.localPiece(bucket, of: transport.rank)]
        let message = encode(
          words, over: isDelta ? own : nil, .allGather, kind, peerCount: transport.size - 1, &sent)
        own.copy(from: words)
        return .toAll(message)
      },
      finish: { [unowned self] bucket, payloads, received in
        for peer in 0..<transport.size where peer != transport.rank {
          let words = flat[plan.piece(bucket, of: peer)]
          try decode(payloads[peer], from: peer, kind, bucket, into: words, &received)
        }
      })
  }

  // MARK: Runs

  /// Moves what was started on, without waiting.
  ///
  /// MPI has no progress thread: called between pieces of other work.
  package func advance() throws {
    while let first = queue.first {
      try guarded { try first.advance() }
      guard first.isFinished else { return }
      try next()
    }
  }

  /// Waits until all that was started is through.
  package func finishAll() throws {
    if let last = queue.last { try finish(last) }
  }

  /// Waits until a run, and all before it, are through.
  func finish(_ run: BucketRun) throws {
    while !run.isFinished, let first = queue.first {
      try guarded { try first.runToEnd(isAlone: false) }
      try next()
    }
  }

  /// An exchange that has not left; `prepare` is called before it does, `completion` when all is done.
  func run(
    _ operation: ExchangeOperation, _ kind: TrafficKind, bucketCount: Int,
    prepare: @escaping () -> Void = {},
    code: @escaping BucketRun.Code = { _, _ in .toEach([]) },
    finish: @escaping BucketRun.Finish = { _, _, _ in }, completion: @escaping () -> Void = {}
  ) -> BucketRun {
    BucketRun(
      operation, kind, bucketCount: bucketCount, of: self, prepare: prepare, code: code,
      finish: finish, completion: completion)
  }

  /// Runs an exchange with nothing beside it.
  func runAlone(_ run: @autoclosure () throws -> BucketRun) throws {
    try finishAll()
    let run = try run()
    queue = [run]
    try guarded {
      try run.begin()
      try run.runToEnd(isAlone: true)
    }
    queue.removeAll()
  }

  /// Has an exchange begin as soon as those before it are through.
  func start(_ run: BucketRun) throws -> BucketRun {
    queue.append(run)
    if queue.count == 1 { try begin() }
    return run
  }

  /// The first one is through: the next one begins.
  private func next() throws {
    queue.removeFirst()
    try begin()
  }

  /// Begins the first one; what has nothing to send is through at once.
  private func begin() throws {
    while let first = queue.first, !first.hasBegun {
      try guarded { try first.begin() }
      if first.isFinished { queue.removeFirst() }
    }
  }

  /// After a failure nothing of the group can go on.
  private func guarded(_ body: () throws -> Void) throws {
    do {
      try body()
    } catch {
      queue.forEach { $0.abandon() }
      queue.removeAll()
      throw error
    }
  }

  // MARK: Parts

  /// Whether all ranks hold the same words in `flat`.
  private func isCommonBase(_ flat: Buffer<Float>) throws -> Bool {
    let checksum = flat.withBytes { CRC32C.checksum(of: $0) }
    let own = (0..<4).map { UInt8(truncatingIfNeeded: checksum >> (8 * $0)) }
    return try transport.allGather(own).allSatisfy { $0 == own }
  }

  func start(_ outgoing: BucketRun.Outgoing) throws -> PendingOperation {
    switch outgoing {
    case .toEach(let payloads): try transport.startAllToAll(payloads)
    case .toAll(let payload): try transport.startAllGather(payload)
    }
  }

  /// Notes what the link took for the messages of one bucket.
  func recordTransfer(_ run: BucketRun, _ sent: ExchangeStatistics.Traffic) {
    policy.recordTransfer(
      run.operation, run.kind, wireByteCount: sent.wireByteCount, seconds: sent.waitSeconds)
  }

  func note(_ received: BucketRun.Received, of run: BucketRun) {
    statistics[run.kind].decodeSeconds += received.seconds
    if received.codedRawByteCount > 0 {
      policy.recordDecoding(
        run.operation, run.kind, rawByteCount: received.codedRawByteCount,
        seconds: received.codedSeconds)
    }
  }

  /// Lets go of free partial sums of another length.
  func keepPartials(ofCount count: Int) {
    partials = partials.filter { $0.count == count }
  }

  /// Takes the memory of all partial sums at once, so that the peak of memory does not depend on when buckets
  /// arrive: while term i of a tree is added, those of the binary digits of i are held.
  /// - Parameter further: pieces that are held besides.
  func reservePartials(_ plan: BucketPlan, termCount: Int, further: Int = 0) {
    keepPartials(ofCount: plan.pieceWordCount)
    if plan.partition.range(of: transport.rank).isEmpty { return }
    let count = (0..<termCount).map { $0.nonzeroBitCount + 1 }.max() ?? 0
    while partials.count < count + further { partials.append(allocate(plan.pieceWordCount)) }
  }

  /// The message of `words` for `peerCount` peers; no bytes for no words.
  func encode(
    _ words: Buffer<Float>, over base: Buffer<Float>? = nil, _ operation: ExchangeOperation,
    _ kind: TrafficKind, peerCount: Int, _ sent: inout ExchangeStatistics.Traffic
  ) -> Payload {
    if words.count == 0 { return Payload([]) }
    let codec = policy.decide(
      operation, kind, candidate: base == nil ? .planes : .deltaPlanes, peerCount: peerCount
    ).codec
    let clock = ContinuousClock()
    let start = clock.now
    let message = Payload(capacity: MessageEncoder.byteCountBound(wordCount: words.count)) { room in
      words.withBytes { words in
        guard codec == .deltaPlanes, let base else {
          return encoder.encode(words, codec: codec, into: &room)
        }
        return base.withBytes { encoder.encode(words, codec: codec, base: $0, into: &room) }
      }
    }
    let seconds = (clock.now - start).inSeconds
    let rawByteCount = words.count * MemoryLayout<Float>.size
    if codec != .off {
      policy.recordEncoding(
        operation, kind, rawByteCount: rawByteCount, codedByteCount: message.count, seconds: seconds
      )
    }
    sent.rawByteCount += peerCount * rawByteCount
    sent.wireByteCount += peerCount * message.count
    sent.messageCount += peerCount
    sent.encodeSeconds += seconds
    return message
  }

  /// Decodes over what `words` holds, which a difference refers to.
  func decode(
    _ message: Payload, from peer: Int, _ kind: TrafficKind, _ bucket: Int,
    into words: Buffer<Float>, _ received: inout BucketRun.Received
  ) throws {
    if words.count == 0 && message.count == 0 { return }
    let clock = ContinuousClock()
    let start = clock.now
    do {
      let header = try message.withBytes { message throws(CompressionError) in
        try words.withMutableBytes { bytes throws(CompressionError) in
          try decoder.decodeOverBase(message, words: &bytes)
        }
      }
      let seconds = (clock.now - start).inSeconds
      received.seconds += seconds
      if header.codec != .off {
        received.codedRawByteCount += header.rawByteCount
        received.codedSeconds += seconds
      }
    } catch {
      throw CompressionError(
        error.code, "\(kind.rawValue) bucket \(bucket) from rank \(peer): \(error.message)",
        cause: error)
    }
  }

  func takePartial(count: Int) -> Buffer<Float> {
    partials.popLast() ?? allocate(count)
  }

  private func requireFlat(_ flat: Buffer<Float>, _ partition: ShardPartition) {
    require(
      flat.count == partition.count,
      "a vector of \(flat.count) elements, a partition of \(partition.count)")
  }
}

extension Duration {
  var inSeconds: Double { self / .seconds(1) }
}
