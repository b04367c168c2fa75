// One-hop exchange of flat vectors, bucket by bucket: each rank codes its pieces once, sends each
// to its owner, and the owner sums in the fixed tree over ranks; shards come back by all-gather.
//
// Goals: 1 the same bits for every codec and arrival order, 2 bounded memory, 3 overlap: bucket
// i + 1 is coded while bucket i is on its way.

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
    requireShard(shard, partition, transport)
    requireFlat(flat, partition)
    let plan = BucketPlan(partition, byteCount: configuration.bucketByteCount)
    partials = partials.filter { $0.count == plan.pieceWordCount }
    if transport.size == 1 { return shard.copy(from: flat) }
    try runPipelined(
      .reduceScatter, kind, plan.bucketCount,
      code: { bucket, sent in
        .toEach(
          (0..<transport.size).map { peer in
            peer == transport.rank
              ? Payload([])
              : encode(
                flat[plan.piece(bucket, of: peer)], .reduceScatter, kind, peerCount: 1, &sent)
          })
      },
      finish: { bucket, payloads, received in
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
    requireShard(shard, partition, transport)
    requireFlat(flat, partition)
    let plan = BucketPlan(partition, byteCount: configuration.bucketByteCount)
    if transport.size == 1 { return flat.copy(from: shard) }
    let isDelta = try flatIsBase && policy.mayCode && isCommonBase(flat)
    try runPipelined(
      .allGather, kind, plan.bucketCount,
      code: { bucket, sent in
        let own = flat[plan.piece(bucket, of: transport.rank)]
        let words = shard[plan.localPiece(bucket, of: transport.rank)]
        let message = encode(
          words, over: isDelta ? own : nil, .allGather, kind, peerCount: transport.size - 1, &sent)
        own.copy(from: words)
        return .toAll(message)
      },
      finish: { bucket, payloads, received in
        for peer in 0..<transport.size where peer != transport.rank {
          let words = flat[plan.piece(bucket, of: peer)]
          try decode(payloads[peer], from: peer, kind, bucket, into: words, &received)
        }
      })
  }

  /// Whether all ranks hold the same words in `flat`.
  private func isCommonBase(_ flat: Buffer<Float>) throws -> Bool {
    let checksum = flat.withBytes { CRC32C.checksum(of: $0) }
    let own = (0..<4).map { UInt8(truncatingIfNeeded: checksum >> (8 * $0)) }
    return try transport.allGather(own).allSatisfy { $0 == own }
  }

  // MARK: Parts

  /// The messages of one bucket.
  enum Outgoing {
    /// By receiver; empty for this rank.
    case toEach([Payload])
    /// The same for all peers.
    case toAll(Payload)
  }

  /// What decoding one bucket took, coded messages apart.
  struct Received {
    var seconds = 0.0
    var codedRawByteCount = 0
    var codedSeconds = 0.0
  }

  /// While bucket i is on its way, bucket i - 1 is finished and bucket i + 1 is coded.
  func runPipelined(
    _ operation: ExchangeOperation, _ kind: TrafficKind, _ bucketCount: Int,
    code: (Int, inout ExchangeStatistics.Traffic) -> Outgoing,
    finish: (Int, [Payload], inout Received) throws -> Void
  ) throws {
    if bucketCount == 0 { return }
    let clock = ContinuousClock()
    var pending: PendingOperation?
    do {
      var sent = ExchangeStatistics.Traffic()
      var outgoing = code(0, &sent)
      var arrived: [Payload] = []
      for bucket in 0..<bucketCount {
        let starting = clock.now
        pending = try start(outgoing)
        sent.waitSeconds += (clock.now - starting).inSeconds
        if bucket > 0 { try finishTimed(bucket - 1, arrived, operation, kind, finish) }
        _ = try pending?.advance()
        var next = ExchangeStatistics.Traffic()
        if bucket + 1 < bucketCount { outgoing = code(bucket + 1, &next) }
        let waiting = clock.now
        if let operation = pending.take() { arrived = try operation.wait() }
        sent.waitSeconds += (clock.now - waiting).inSeconds
        // The first wait is mostly for ranks that arrive late, which says nothing of the link.
        if bucket > 0 || bucketCount == 1 {
          policy.recordTransfer(
            operation, kind, wireByteCount: sent.wireByteCount, seconds: sent.waitSeconds)
        }
        statistics[kind] += sent
        sent = next
      }
      try finishTimed(bucketCount - 1, arrived, operation, kind, finish)
    } catch {
      if let operation = pending.take() { operation.abandon() }
      throw error
    }
  }

  private func start(_ outgoing: Outgoing) throws -> PendingOperation {
    switch outgoing {
    case .toEach(let payloads): try transport.startAllToAll(payloads)
    case .toAll(let payload): try transport.startAllGather(payload)
    }
  }

  private func finishTimed(
    _ bucket: Int, _ payloads: [Payload], _ operation: ExchangeOperation, _ kind: TrafficKind,
    _ finish: (Int, [Payload], inout Received) throws -> Void
  ) throws {
    var received = Received()
    try finish(bucket, payloads, &received)
    statistics[kind].decodeSeconds += received.seconds
    if received.codedRawByteCount > 0 {
      policy.recordDecoding(
        operation, kind, rawByteCount: received.codedRawByteCount, seconds: received.codedSeconds)
    }
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
    into words: Buffer<Float>, _ received: inout Received
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
