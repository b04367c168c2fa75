// Columns between the ranks that cut weights: what a layer of cut inputs gives is a term of a sum, and each rank
// goes on with its own columns of that sum.
//
// Source: Megatron-LM (1909.08053) §3; by columns in place of tokens where the next layer's inputs are cut too.

package import DenseKernels
import MessagePassing
import ProcessMesh

extension TokenExchange {
  /// All columns on every rank → own columns, summed over the ranks in rank order.
  ///
  /// - Parameter room: holds as many elements as x.
  /// - Shapes: y [rows, width] → x [rows, width / size].
  /// - Collective: over the group; the sizes must agree.
  /// - Throws: as `scatterHeads`.
  /// - Precondition: the ranks divide the width.
  /// - Cost: sends all of y but the own columns.
  package func reduceColumns<Scalar: KernelScalar>(
    _ y: Buffer<Scalar>, rowCount: Int, into x: Buffer<Scalar>, room: Buffer<Scalar>
  ) throws {
    let (rank, width) = (transport.rank, requireColumns(own: x, all: y, rowCount))
    let ownWidth = width / transport.size
    precondition(room.count == x.count, "room for \(room.count) of \(x.count) elements")
    func columns(of part: Int) -> Buffer<Scalar> { y[min(part * ownWidth, y.count)..<y.count] }
    try exchange(Scalar.self) { peer, bytes in
      // Own columns are read where they are.
      if peer == rank { return 0 }
      return columns(of: peer)
        .packRows(rowCount, width: ownWidth, stride: width, into: &bytes, at: 0)
    } receive: { peer, bytes in
      let term = peer == 0 ? x : room
      if peer == rank {
        Scalar.copyRows(
          columns(of: rank), stride: width, to: term, stride: ownWidth, rowCount: rowCount,
          width: ownWidth)
      } else {
        _ = term.unpackRows(1, width: x.count, stride: x.count, from: bytes, at: 0)
      }
      if peer > 0 { Scalar.add(1, room, to: x) }
    } elementCount: { from, to in
      from == to ? 0 : x.count
    }
  }

  /// Own columns → all columns, on every rank: the adjoint of `reduceColumns`.
  ///
  /// - Shapes: x [rows, width / size] → y [rows, width].
  /// - Collective: over the group; the sizes must agree.
  /// - Throws: as `scatterHeads`.
  /// - Cost: sends x to every peer.
  package func gatherColumns<Scalar: KernelScalar>(
    _ x: Buffer<Scalar>, rowCount: Int, into y: Buffer<Scalar>
  ) throws {
    let width = requireColumns(own: x, all: y, rowCount)
    let ownWidth = width / transport.size
    try gather(x) { _ in
      x.count
    } receive: { peer, bytes in
      _ = y[min(peer * ownWidth, y.count)..<y.count].unpackRows(
        rowCount, width: ownWidth, stride: width, from: bytes, at: 0)
    }
  }

  /// - Returns: the width of a row.
  private func requireColumns<Scalar: KernelScalar>(
    own x: Buffer<Scalar>, all y: Buffer<Scalar>, _ rowCount: Int
  ) -> Int {
    let width = y.count / max(rowCount, 1)
    precondition(
      y.count == x.count * transport.size && y.count == rowCount * width,
      "\(x.count) own and \(y.count) gathered elements in \(rowCount) rows")
    return width
  }
}
