// Keys and values of a ring of ranks: every rank's pass every rank, from neighbor to neighbor, while those
// that came before are computed with.
//
// Goals: 1 sums in a fixed order, 2 two blocks in memory whatever the number of ranks, 3 nothing waits that
// can travel. What came in is sent on as it is.
// Source: Ring Attention (2310.01889) §3; bytes: specs of distributed systems, §4.

package import DenseKernels
import MessagePassing
import ProcessMesh

/// Keys and values of some tokens, or their gradients: as many elements of each.
package struct KeysAndValues<Scalar: KernelScalar> {
  package let keys: Buffer<Scalar>
  package let values: Buffer<Scalar>

  package init(keys: Buffer<Scalar>, values: Buffer<Scalar>) {
    precondition(
      keys.count == values.count, "\(keys.count) elements of keys, \(values.count) of values")
    self.keys = keys
    self.values = values
  }

  fileprivate func prefix(_ count: Int) -> KeysAndValues {
    KeysAndValues(keys: keys[0..<count], values: values[0..<count])
  }

  fileprivate var payload: Payload {
    Payload(capacity: 2 * keys.count * MemoryLayout<Scalar>.stride) { bytes in
      let start = keys.packRows(1, width: keys.count, stride: keys.count, into: &bytes, at: 0)
      return start
        + values.packRows(1, width: keys.count, stride: keys.count, into: &bytes, at: start)
    }
  }

  fileprivate func unpack(_ payload: Payload) {
    payload.withBytes { bytes in
      let start = keys.unpackRows(1, width: keys.count, stride: keys.count, from: bytes, at: 0)
      _ = values.unpackRows(1, width: keys.count, stride: keys.count, from: bytes, at: start)
    }
  }

  fileprivate func add(_ other: KeysAndValues) {
    Scalar.add(1, other.keys, to: keys)
    Scalar.add(1, other.values, to: values)
  }
}

extension TokenExchange {
  /// Visits the blocks of all ranks: the own one, then that of the rank before, and so on round the ring.
  /// While a block is visited the next one travels.
  ///
  /// - Parameters:
  ///   - own: keys and values of the own tokens; not changed.
  ///   - elementCounts: elements of keys of every rank's block.
  ///   - room: for the blocks of others; holds the largest block.
  /// - Collective: over the group; the counts must agree.
  /// - Throws: what the transport throws; `PeerError` where a peer sends another number of bytes.
  /// - Cost: sends every block but that of the next rank: 2 (size − 1) blocks of elements where all are alike.
  package func circulate<Scalar: KernelScalar>(
    _ own: KeysAndValues<Scalar>, elementCounts: [Int], room: KeysAndValues<Scalar>,
    visit: (_ part: Int, _ block: KeysAndValues<Scalar>) throws -> Void
  ) throws {
    let (rank, size) = (transport.rank, transport.size)
    precondition(
      elementCounts.count == size && elementCounts[rank] == own.keys.count
        && (size == 1 || room.keys.count >= elementCounts.max() ?? 0),
      "\(own.keys.count) own elements of \(elementCounts) on rank \(rank) of \(size)")
    var block = own
    var payload: Payload?
    for step in 0..<size {
      let part = transport.ringNeighbor(-step)
      guard step + 1 < size else { return try visit(part, block) }
      let next = try startShift(payload ?? own.payload)
      do { try visit(part, block) } catch {
        next.abandon()
        throw error
      }
      block = room.prefix(elementCounts[transport.ringNeighbor(-step - 1)])
      payload = try finishShift(next, into: block)
    }
  }

  /// The way back of `circulate`: blocks pass once more, and what a rank finds as the gradient of a block
  /// of another goes round to the rank whose block it is.
  ///
  /// The gradient of rank r's block is summed as it travels, from rank r + 1 on round the ring, and joins
  /// what rank r has itself: ((g(r+1) + g(r+2)) + …) + g(r).
  /// - Parameters:
  ///   - gradients: of the own block; what comes from others is added here.
  ///   - sums: room for the gradients of another's block.
  ///   - differentiate: is given nil for the own block, and writes its gradients where they belong; else
  ///     the memory for the gradients of the block, whose content it overwrites.
  /// - Collective: as `circulate`.
  /// - Throws: as `circulate`.
  /// - Cost: sends twice what `circulate` does, 4 (size − 1) blocks of elements where all are alike.
  package func circulate<Scalar: KernelScalar>(
    _ own: KeysAndValues<Scalar>, gradients: KeysAndValues<Scalar>, elementCounts: [Int],
    room: KeysAndValues<Scalar>, sums: KeysAndValues<Scalar>,
    differentiate: (
      _ part: Int, _ block: KeysAndValues<Scalar>, _ gradients: KeysAndValues<Scalar>?
    ) -> Void
  ) throws {
    var travelling: PendingOperation?
    do {
      try circulate(own, elementCounts: elementCounts, room: room) { part, block in
        if part == transport.rank { return differentiate(part, block, nil) }
        let found = sums.prefix(block.keys.count)
        differentiate(part, block, found)
        if let operation = travelling.take() {
          // The block itself is done with: its room takes what others found.
          _ = try finishShift(operation, into: block)
          found.add(block)
        }
        travelling = try startShift(found.payload)
      }
      if let operation = travelling.take() {
        let found = room.prefix(own.keys.count)
        _ = try finishShift(operation, into: found)
        gradients.add(found)
      }
    } catch {
      if let operation = travelling.take() { operation.abandon() }
      throw error
    }
  }

  // MARK: Parts

  private func startShift(_ payload: Payload) throws -> PendingOperation {
    note(byteCount: payload.count, messageCount: 1)
    return try transport.startShift(payload, by: 1)
  }

  /// - Returns: what came, to be sent on.
  private func finishShift<Scalar: KernelScalar>(
    _ operation: consuming PendingOperation, into target: KeysAndValues<Scalar>
  ) throws -> Payload {
    let clock = ContinuousClock()
    let start = clock.now
    let payloads = try operation.wait()
    noteWait(clock.now - start)
    let payload = payloads[0]
    try check(
      payload, from: transport.ringNeighbor(-1),
      2 * target.keys.count * MemoryLayout<Scalar>.stride)
    target.unpack(payload)
    return payload
  }
}
