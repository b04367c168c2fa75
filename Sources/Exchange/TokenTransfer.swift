// Tokens against heads on their way: what leaves when an operand is made may arrive just before it is needed, and
// travels beside what is computed meanwhile.
//
// Messages move on when somebody gives them a moment (`TokenExchange.advance`), since MPI moves them only inside
// its calls. Bits, bytes and memory of tensors are those of an exchange that is waited for at once.

package import DenseKernels
package import MeshLayout
import MessagePassing
import ProcessMesh

/// One exchange that has left and has not arrived. It must be finished, by the call that its start names.
package final class TokenTransfer {
  private var pending: PendingOperation?
  private var payloads: [Payload] = []

  init(_ operation: consuming PendingOperation) { pending = consume operation }

  /// Moves it on without waiting.
  func advance() throws { _ = try pending?.advance() }

  /// Waits for it.
  func wait() throws {
    if let operation = pending.take() { payloads = try operation.wait() }
  }

  /// What came, by rank.
  func take() throws -> [Payload] {
    try wait()
    defer { payloads = [] }
    return payloads
  }
}

extension TokenExchange {
  /// Starts what `scatterHeads` does; `finishScatterHeads` ends it.
  ///
  /// - Shapes: x [B, own tokens, width], which may change as soon as this returns.
  /// - Collective: over the group. Starts, and exchanges that are waited for, have the same order on all ranks.
  /// - Throws: as `scatterHeads`.
  package func startScatterHeads<Scalar: KernelScalar>(
    _ x: Buffer<Scalar>, layout: TokenLayout
  ) throws -> TokenTransfer {
    let width = layout.partWidth
    let rowCount = layout.sampleCount * layout.tokenCount(of: transport.rank)
    requireOwn(x.count, layout)
    return try start(Scalar.self) { peer, bytes in
      Self.columns(of: peer, in: x, layout).packRows(
        rowCount, width: width, stride: layout.width, into: &bytes, at: 0)
    } elementCount: { peer in
      rowCount * width
    }
  }

  /// - Shapes: y [B, tokens, width / size].
  /// - Throws: as `scatterHeads`.
  package func finishScatterHeads<Scalar: KernelScalar>(
    _ transfer: TokenTransfer, layout: TokenLayout, into y: Buffer<Scalar>
  ) throws {
    requireAll(y.count, layout)
    try finish(transfer, Scalar.self) { peer, bytes in
      var offset = 0
      for place in Self.places(of: peer, layout) {
        offset += y[place].unpackRows(
          1, width: place.count, stride: place.count, from: bytes, at: offset)
      }
    } elementCount: { peer in
      layout.sampleCount * layout.tokenCount(of: peer) * layout.partWidth
    }
  }

  /// Starts what `gatherHeads` does; `finishGatherHeads` ends it.
  ///
  /// - Shapes: y [B, tokens, width / size], which may change as soon as this returns.
  /// - Collective: as `startScatterHeads`.
  /// - Throws: as `scatterHeads`.
  package func startGatherHeads<Scalar: KernelScalar>(
    _ y: Buffer<Scalar>, layout: TokenLayout
  ) throws -> TokenTransfer {
    requireAll(y.count, layout)
    return try start(Scalar.self) { peer, bytes in
      var offset = 0
      for place in Self.places(of: peer, layout) {
        offset += y[place].packRows(
          1, width: place.count, stride: place.count, into: &bytes, at: offset)
      }
      return offset
    } elementCount: { peer in
      layout.sampleCount * layout.tokenCount(of: peer) * layout.partWidth
    }
  }

  /// - Shapes: x [B, own tokens, width].
  /// - Throws: as `scatterHeads`.
  package func finishGatherHeads<Scalar: KernelScalar>(
    _ transfer: TokenTransfer, layout: TokenLayout, into x: Buffer<Scalar>
  ) throws {
    let width = layout.partWidth
    let rowCount = layout.sampleCount * layout.tokenCount(of: transport.rank)
    requireOwn(x.count, layout)
    try finish(transfer, Scalar.self) { peer, bytes in
      _ = Self.columns(of: peer, in: x, layout).unpackRows(
        rowCount, width: width, stride: layout.width, from: bytes, at: 0)
    } elementCount: { _ in
      rowCount * width
    }
  }
}
