// Units whose elements are shared among all ranks of a group, while each rank computes with a part of them
// (tensor parallelism): owners send every rank what it needs, and get back its gradients.
//
// Ranks come in neighborhoods of as many as there are parts. Elements that all parts have get a term of the
// gradient from every rank, others from one rank of each neighborhood. They meet in the tree over a neighborhood, then
// in that over neighborhoods: where their size is a power of two that is the tree over ranks. So the bits depend neither
// on the number of neighborhoods nor, where terms are those of neighboring tokens, on that of parts.

package import DenseKernels
package import MeshLayout
import MessagePassing
import ProcessMesh

extension BucketExchange {
  /// Puts this rank's part of a unit, of which every rank owns a shard, into `part`.
  ///
  /// - Collective: over the group; the unit must agree.
  /// - Precondition: `shard` has the length of the own range, `part` at least that of the slice.
  /// - Throws: what the transport throws; `CompressionError` when a message is damaged.
  /// - Cost: `unit.loadCount(from: rank)` words before coding; room for a piece of a bucket.
  package func gatherPart(
    of unit: SlicedUnit, _ shard: Buffer<Float>, into part: Buffer<Float>,
    kind: TrafficKind = .parameters
  ) throws {
    try runAlone(partGather(of: unit, shard, into: part, kind: kind))
  }

  /// The same beside other work: both buffers belong to it until it is finished.
  package func startGatherPart(
    of unit: SlicedUnit, _ shard: Buffer<Float>, into part: Buffer<Float>,
    kind: TrafficKind = .parameters
  ) throws -> BucketRun {
    try start(partGather(of: unit, shard, into: part, kind: kind))
  }

  private func partGather(
    of unit: SlicedUnit, _ shard: Buffer<Float>, into part: Buffer<Float>, kind: TrafficKind
  ) -> BucketRun {
    let (rank, size) = (transport.rank, transport.size)
    let (slice, plan) = parts(of: unit, shard)
    let origin = unit.partition.range(of: rank).lowerBound
    return run(
      .allGather, kind, bucketCount: plan.bucketCount,
      code: { [unowned self] bucket, sent in
        let room = takeRoom(plan)
        defer { partials.append(room) }
        let piece = plan.piece(bucket, of: rank)
        let messages = unit.slices.enumerated().map { index, slice in
          let peerCount = size / unit.degree - (index == rank % unit.degree ? 1 : 0)
          if peerCount == 0 { return Payload([]) }
          let rows = slice.rows(in: piece)
          let words =
            rows.range.map { shard[$0.lowerBound - origin..<$0.upperBound - origin] }
            ?? pack(rows, of: shard, from: origin, into: room)
          return encode(words, .allGather, kind, peerCount: peerCount, &sent)
        }
        return .toEach(
          (0..<size).map { $0 == rank ? Payload([]) : messages[$0 % unit.degree] })
      },
      finish: { [unowned self] bucket, payloads, received in
        let room = takeRoom(plan)
        defer { partials.append(room) }
        for peer in 0..<size {
          let rows = slice.rows(in: plan.piece(bucket, of: peer))
          func put(_ source: (StridedRows) -> (words: Buffer<Float>, stride: Int)) {
            for row in rows {
              let (words, stride) = source(row)
              Float.copyRows(
                words, stride: stride, to: part[row.localStart..<part.count],
                stride: row.localStride, rowCount: row.rowCount, width: row.width)
            }
          }
          if peer == rank {
            put { (shard[$0.start - origin..<shard.count], $0.stride) }
            continue
          }
          let place = rows.localRange
          let words = place.map { part[$0] } ?? room[0..<rows.reduce(0) { $0 + $1.count }]
          try decode(payloads[peer], from: peer, kind, bucket, into: words, &received)
          if place != nil { continue }
          var next = 0
          put { row in
            defer { next += row.count }
            return (words[next..<words.count], row.width)
          }
        }
      })
  }

  /// Sums the gradients of all ranks' parts at the owners of the elements.
  ///
  /// - Collective: over the group; the unit must agree.
  /// - Precondition: as `gatherPart`.
  /// - Throws: as `gatherPart`.
  /// - Cost: `unit.gradientCount(from: rank)` words before coding; room for a piece of a bucket, and the
  ///   partial sums of a tree.
  package func reducePart(
    of unit: SlicedUnit, _ part: Buffer<Float>, into shard: Buffer<Float>,
    kind: TrafficKind = .gradients
  ) throws {
    try runAlone(partReduction(of: unit, part, into: shard, kind: kind))
  }

  /// The same beside other work: both buffers belong to it until it is finished.
  package func startReducePart(
    of unit: SlicedUnit, _ part: Buffer<Float>, into shard: Buffer<Float>,
    kind: TrafficKind = .gradients
  ) throws -> BucketRun {
    try start(partReduction(of: unit, part, into: shard, kind: kind))
  }

  private func partReduction(
    of unit: SlicedUnit, _ part: Buffer<Float>, into shard: Buffer<Float>, kind: TrafficKind
  ) -> BucketRun {
    let (rank, size) = (transport.rank, transport.size)
    let (slice, plan) = parts(of: unit, shard)
    return run(
      .reduceScatter, kind, bucketCount: plan.bucketCount,
      prepare: { [unowned self] in
        let neighborhood = heldPartialCount(ofTree: unit.pairCount)
        reservePartials(plan, termCount: size / unit.degree, further: neighborhood + 1)
      },
      code: { [unowned self] bucket, sent in
        let room = takeRoom(plan)
        defer { partials.append(room) }
        return .toEach(
          (0..<size).map { peer in
            if peer == rank { return Payload([]) }
            let rows = slice.rows(in: plan.piece(bucket, of: peer))
            let words = rows.localRange.map { part[$0] } ?? packPart(rows, of: part, into: room)
            return encode(words, .reduceScatter, kind, peerCount: 1, &sent)
          })
      },
      finish: { [unowned self] bucket, payloads, received in
        let own = plan.piece(bucket, of: rank)
        if own.isEmpty { return }
        let room = takeRoom(plan)
        defer { partials.append(room) }
        let sum = try treeReduce(
          ofEqual: unit.pairCount, count: size / unit.degree * unit.pairCount,
          operand: { pair throws -> Buffer<Float> in
            let partial = takePartial(count: plan.pieceWordCount)
            partial[0..<own.count].clear()
            // The lowest level of the tree: what the second of a pair has is added where the first's is.
            for peer in unit.pair(pair) {
              let rows = unit.slice(of: peer).rows(in: own)
              func add(_ source: (StridedRows) -> (words: Buffer<Float>, stride: Int)) {
                for row in rows {
                  let (words, stride) = source(row)
                  Float.addRows(
                    words, stride: stride, to: partial[row.start - own.lowerBound..<own.count],
                    stride: row.stride, rowCount: row.rowCount, width: row.width)
                }
              }
              if peer == rank {
                add { (part[$0.localStart..<part.count], $0.localStride) }
                continue
              }
              let words = room[0..<rows.reduce(0) { $0 + $1.count }]
              try decode(payloads[peer], from: peer, kind, bucket, into: words, &received)
              var next = 0
              add { row in
                defer { next += row.count }
                return (words[next..<words.count], row.width)
              }
            }
            return partial
          },
          combine: { left, right throws -> Buffer<Float> in
            Float.add(1, right[0..<own.count], to: left[0..<own.count])
            partials.append(right)
            return left
          })
        shard[plan.localPiece(bucket, of: rank)].copy(from: sum[0..<own.count])
        partials.append(sum)
      })
  }

  // MARK: Parts

  /// This rank's part, and the buckets.
  private func parts(
    of unit: SlicedUnit, _ shard: Buffer<Float>
  ) -> (slice: UnitSlice, plan: BucketPlan) {
    requireShard(shard, unit.partition, transport)
    return (
      unit.slice(of: transport.rank),
      BucketPlan(unit.partition, byteCount: configuration.bucketByteCount)
    )
  }

  /// Room for any piece of a bucket, from the pool of partial sums.
  private func takeRoom(_ plan: BucketPlan) -> Buffer<Float> {
    keepPartials(ofCount: plan.pieceWordCount)
    return takePartial(count: plan.pieceWordCount)
  }

  /// Rows of a unit, of which `source` holds the elements from `origin` on, one after the other.
  private func pack(
    _ rows: [StridedRows], of source: Buffer<Float>, from origin: Int, into room: Buffer<Float>
  ) -> Buffer<Float> {
    var next = 0
    for row in rows {
      Float.copyRows(
        source[row.start - origin..<source.count], stride: row.stride,
        to: room[next..<room.count], stride: row.width, rowCount: row.rowCount, width: row.width)
      next += row.count
    }
    return room[0..<next]
  }

  /// The same of memory that holds a part.
  private func packPart(
    _ rows: [StridedRows], of part: Buffer<Float>, into room: Buffer<Float>
  ) -> Buffer<Float> {
    var next = 0
    for row in rows {
      Float.copyRows(
        part[row.localStart..<part.count], stride: row.localStride,
        to: room[next..<room.count], stride: row.width, rowCount: row.rowCount, width: row.width)
      next += row.count
    }
    return room[0..<next]
  }
}
