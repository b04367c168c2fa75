// Rotary positions, and rotation by them where there is no norm to do it along with.

package import DenseKernels
import Tensors

/// Rotary position tables: for each rotated token and each pair of a head's elements, the cosine
/// and sine of its angle.
/// - Source: RoFormer (2104.09864), eq. 34; interleaved pairs as in HunyuanVideo.
package struct RotaryTable<Scalar: KernelScalar> {
  package let tokenCount: Int
  /// tokenCount × K/2 each.
  package let cosines: Buffer<Scalar>
  package let sines: Buffer<Scalar>

  package init(tokenCount: Int, cosines: [Double], sines: [Double]) {
    precondition(
      cosines.count == sines.count && (tokenCount == 0 || cosines.count % tokenCount == 0),
      "\(cosines.count) cosines and \(sines.count) sines for \(tokenCount) tokens")
    self.tokenCount = tokenCount
    self.cosines = Buffer(cosines.map { Scalar($0) })
    self.sines = Buffer(sines.map { Scalar($0) })
  }

  private init(tokenCount: Int, cosines: Buffer<Scalar>, sines: Buffer<Scalar>) {
    self.tokenCount = tokenCount
    self.cosines = cosines
    self.sines = sines
  }

  /// The table of a range of its tokens, in the same memory.
  package func tokens(_ range: Range<Int>) -> RotaryTable {
    let width = tokenCount == 0 ? 0 : cosines.count / tokenCount
    let elements = range.lowerBound * width..<range.upperBound * width
    return RotaryTable(
      tokenCount: range.count, cosines: cosines[elements], sines: sines[elements])
  }
}

extension Tape {
  /// Exchanges two dimensions and rotates every head by its place on the first of them, in one pass:
  /// y[b, l, f] = R_f x[b, f, l]. Nothing is stored for the way back.
  /// - Shapes: x [B, F, L, N·K], F positions in the table → [B, L, F, N·K].
  package func rotatedAndTransposed(
    _ x: Value<Scalar>, by rotation: RotaryTable<Scalar>
  ) -> Value<Scalar> {
    precondition(
      x.shape.count == 4 && x.shape[1] == rotation.tokenCount,
      "\(rotation.tokenCount) rotary positions for \(x.shape)")
    let walk = TransposedRows(shape: x.shape)
    let output = result([x.shape[0], x.shape[2], x.shape[1], x.shape[3]])
    walk.forEachPosition { position, rows, transposedRows in
      let (cosines, sines) = rotation.angles(of: position)
      Scalar.rotateRows(
        x.tensor.buffer[rows], stride: walk.width, to: output.buffer[transposedRows],
        stride: walk.transposedStride, rowCount: walk.rowCount, width: walk.width,
        cosines: cosines, sines: sines, backwards: false, accumulating: false)
    }
    return record(output, from: [x]) { outputGradient, gradients in
      guard let dx = gradients.place(of: 0) else { return }
      walk.forEachPosition { position, rows, transposedRows in
        let (cosines, sines) = rotation.angles(of: position)
        Scalar.rotateRows(
          outputGradient.buffer[transposedRows], stride: walk.transposedStride,
          to: dx.buffer[rows], stride: walk.width, rowCount: walk.rowCount, width: walk.width,
          cosines: cosines, sines: sines, backwards: true, accumulating: dx.accumulates)
      }
    }
  }
}

extension RotaryTable {
  /// The angles of one position, K/2 each.
  fileprivate func angles(of position: Int) -> (cosines: Buffer<Scalar>, sines: Buffer<Scalar>) {
    let pairCount = cosines.count / tokenCount
    let range = (position * pairCount)..<((position + 1) * pairCount)
    return (cosines[range], sines[range])
  }
}

/// Where the L rows of one sample and position lie in [B, F, L, D], one after another, and in
/// [B, L, F, D], F rows apart.
private struct TransposedRows {
  let sampleCount: Int
  let positionCount: Int
  let rowCount: Int
  let width: Int
  var transposedStride: Int { positionCount * width }

  init(shape: [Int]) {
    (sampleCount, positionCount, rowCount, width) = (shape[0], shape[1], shape[2], shape[3])
  }

  func forEachPosition(
    _ body: (_ position: Int, _ rows: Range<Int>, _ transposedRows: Range<Int>) -> Void
  ) {
    guard rowCount > 0 else { return }
    let sampleSize = positionCount * rowCount * width
    for sample in 0..<sampleCount {
      for position in 0..<positionCount {
        let start = sample * sampleSize + position * rowCount * width
        let transposedStart = sample * sampleSize + position * width
        body(
          position, start..<(start + rowCount * width),
          transposedStart..<((sample + 1) * sampleSize))
      }
    }
  }
}
