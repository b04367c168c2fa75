// Flash attention in Float32: tiles of scores, products on strided heads.
//
// Goals: 1 bounded workspace (one or two tiles, whatever L is), 2 speed, also for short sequences.
// Only the log-sum-exp per query is saved; the backward pass recomputes the scores of a tile. Tiles
// whose keys are all visible take the path without a mask; tiles without a visible key are skipped.
// Sums over keys run in tile order, so equal inputs give equal bits.
// Source: FlashAttention-2 (2307.08691), algorithms 1 and 2. Formulas: KernelScalar+SlowAttention.swift.

import CKernels

/// How attention is cut: scores of `queryCount` × `keyCount` exist at a time.
package enum AttentionTiles {
  package static let queryCount = 128
  package static let keyCount = 512
  /// Bytes of workspace of a forward or backward call, without the mask's row per sample.
  package static let workspaceByteCount = (2 * queryCount * keyCount + 4 * queryCount) * 4
}

extension Float {
  package static func attention(
    query: Buffer<Self>, key: Buffer<Self>, value: Buffer<Self>, mask: AttentionMask?,
    shape: AttentionShape, precision: ProductPrecision, into output: Buffer<Self>,
    logSumExp: Buffer<Self>
  ) {
    shape.require(
      queries: [("query", query), ("output", output)], keys: [("key", key), ("value", value)],
      logSumExp: logSumExp, mask: mask)
    let (stride, scale) = (
      shape.headCount * shape.headWidth, 1 / Float(shape.headWidth).squareRoot()
    )
    KernelThreads.split(shape.sampleCount * shape.headCount) { heads in
      let work = AttentionWorkspace(shape: shape, precision: precision, scoreTileCount: 1)
      for (b, n) in shape.samplesAndHeads(heads) {
        let tiles = work.keyTiles(of: b, mask, shape)
        for first in Swift.stride(from: 0, to: shape.queryCount, by: AttentionTiles.queryCount) {
          let rows = min(AttentionTiles.queryCount, shape.queryCount - first)
          let start = shape.queryStart(b, first, n)
          let q = unsafe HeadRows(query.base + start, rows, stride)
          let o = unsafe HeadRows(output.base + start, rows, stride)
          unsafe work.maximum.update(repeating: -.infinity, count: rows)
          unsafe work.total.update(repeating: 0, count: rows)
          for (index, tile) in tiles.enumerated() {
            let offset = shape.keyStart(b, tile.first, n)
            let k = unsafe HeadRows(key.base + offset, tile.count, stride)
            let v = unsafe HeadRows(value.base + offset, tile.count, stride)
            let scores = unsafe work.scores(rows, tile)
            unsafe work.product(q, k.transposed, shape.headWidth, scale, false, into: scores)
            unsafe w2svd_softmax_tile(
              scores.base, rows, tile.count, scores.stride, work.bias(of: tile), work.maximum,
              work.total, work.factor)
            if index > 0 {
              unsafe w2svd_scale_rows(o.base, stride, rows, shape.headWidth, work.factor)
            }
            unsafe work.product(
              scores, v, tile.count, 1, index > 0, into: o, columns: shape.headWidth)
          }
          if tiles.isEmpty {
            for r in 0..<rows {
              unsafe (o.base + r * stride).update(repeating: 0, count: shape.headWidth)
            }
          }
          unsafe w2svd_finish_rows(
            o.base, stride, rows, shape.headWidth, work.maximum, work.total,
            logSumExp.base + shape.rowStart(b, n) + first)
        }
        guard let mask, !mask.isolatedQueries.isEmpty else { continue }
        let key0 = shape.keyStart(b, 0, n)
        for i in 0..<shape.queryCount where mask.isIsolated(i, sample: b, shape: shape) {
          let start = shape.queryStart(b, i, n)
          var score: Float = 0
          unsafe w2svd_row_dots(
            query.base + start, key.base + key0, stride, 1, shape.headWidth, &score)
          logSumExp[shape.rowStart(b, n) + i] = score * scale
          unsafe (output.base + start).update(from: value.base + key0, count: shape.headWidth)
        }
      }
    }
  }

  package static func attentionBackward(
    outputGradient: Buffer<Self>, query: Buffer<Self>, key: Buffer<Self>, value: Buffer<Self>,
    output: Buffer<Self>, logSumExp: Buffer<Self>, mask: AttentionMask?, shape: AttentionShape,
    precision: ProductPrecision, queryGradient: GradientBuffer<Self>,
    keyGradient: GradientBuffer<Self>, valueGradient: GradientBuffer<Self>
  ) {
    shape.require(
      queries: [
        ("outputGradient", outputGradient), ("query", query), ("output", output),
        ("queryGradient", queryGradient.buffer),
      ],
      keys: [
        ("key", key), ("value", value), ("keyGradient", keyGradient.buffer),
        ("valueGradient", valueGradient.buffer),
      ], logSumExp: logSumExp, mask: mask)
    // A mask may leave out tiles, and then nothing overwrites their part.
    let isMasked = mask != nil
    func start(_ gradient: GradientBuffer<Self>) -> (Buffer<Self>, overwrites: Bool) {
      isMasked ? (gradient.addend, false) : (gradient.buffer, !gradient.accumulates)
    }
    let (queryGradient, overwritesQuery) = start(queryGradient)
    let (keyGradient, overwritesKey) = start(keyGradient)
    let (valueGradient, overwritesValue) = start(valueGradient)
    let (stride, width) = (shape.headCount * shape.headWidth, shape.headWidth)
    let scale = 1 / Float(width).squareRoot()
    KernelThreads.split(shape.sampleCount * shape.headCount) { heads in
      let work = AttentionWorkspace(shape: shape, precision: precision, scoreTileCount: 2)
      for (b, n) in shape.samplesAndHeads(heads) {
        let tiles = work.keyTiles(of: b, mask, shape)
        for first in Swift.stride(from: 0, to: shape.queryCount, by: AttentionTiles.queryCount) {
          let rows = min(AttentionTiles.queryCount, shape.queryCount - first)
          let start = shape.queryStart(b, first, n)
          let q = unsafe HeadRows(query.base + start, rows, stride)
          let dq = unsafe HeadRows(queryGradient.base + start, rows, stride)
          let dO = unsafe HeadRows(outputGradient.base + start, rows, stride)
          unsafe w2svd_row_dots(
            dO.base, output.base + start, stride, rows, width, work.correction)
          // Rows that the tiles must not see get exp(s − ∞) = 0. For an isolated query the only
          // weight is 1, so ds = dp − D = 0 and only the value of key 0 has a gradient.
          for r in 0..<rows {
            let saved = logSumExp[shape.rowStart(b, n) + first + r]
            let isIsolated = mask?.isIsolated(first + r, sample: b, shape: shape) ?? false
            unsafe work.maximum[r] = isIsolated || saved == -.infinity ? .infinity : saved
            if isIsolated {
              unsafe w2svd_add(
                1, dO.base + r * stride, valueGradient.base + shape.keyStart(b, 0, n), width)
            }
          }
          for tile in tiles {
            let offset = shape.keyStart(b, tile.first, n)
            let k = unsafe HeadRows(key.base + offset, tile.count, stride)
            let v = unsafe HeadRows(value.base + offset, tile.count, stride)
            let dk = unsafe HeadRows(keyGradient.base + offset, tile.count, stride)
            let dv = unsafe HeadRows(valueGradient.base + offset, tile.count, stride)
            let p = unsafe work.scores(rows, tile)
            let ds = unsafe work.scoreGradients(rows, tile)
            unsafe work.product(q, k.transposed, width, scale, false, into: p)
            unsafe w2svd_probabilities(
              p.base, rows, tile.count, p.stride, work.bias(of: tile), work.maximum)
            unsafe work.product(
              p.transposed, dO, rows, 1, !overwritesValue || first > 0, into: dv, columns: width)
            unsafe work.product(dO, v.transposed, width, 1, false, into: ds)
            unsafe w2svd_score_gradients(
              p.base, ds.base, rows, tile.count, p.stride, work.correction, scale)
            unsafe work.product(
              ds, k, tile.count, 1, !overwritesQuery || tile.first > 0, into: dq, columns: width)
            unsafe work.product(
              ds.transposed, q, rows, 1, !overwritesKey || first > 0, into: dk, columns: width)
          }
        }
      }
    }
  }
}

extension AttentionShape {
  /// Sample and head of each of `heads`, counted over all samples.
  fileprivate func samplesAndHeads(_ heads: Range<Int>) -> [(sample: Int, head: Int)] {
    heads.map { ($0 / headCount, $0 % headCount) }
  }
}

/// Rows of one head among its neighbors, or of a tile of scores.
@unsafe
private struct HeadRows {
  let base: UnsafeMutablePointer<Float>
  let rows: Int
  let stride: Int
  private(set) var isTransposed = false

  init(_ base: UnsafeMutablePointer<Float>, _ rows: Int, _ stride: Int) {
    unsafe self.base = base
    unsafe self.rows = rows
    unsafe self.stride = stride
  }

  var transposed: HeadRows {
    var result = unsafe self
    unsafe result.isTransposed = true
    return unsafe result
  }
}

/// The memory of one call: one or two tiles of scores, a few numbers per row, a mask row per sample,
/// packed operands of bfloat16 products.
@safe
private final class AttentionWorkspace {
  struct KeyTile {
    let first: Int
    let count: Int
    /// Whether some of its keys may not be seen.
    let isMasked: Bool
  }

  private let precision: ProductPrecision
  private let memory: UnsafeMutableRawPointer
  private let packing: UnsafeMutableRawPointer
  private let floats: UnsafeMutablePointer<Float>
  private let tileElementCount: Int
  private let biasRow: UnsafeMutablePointer<Float>
  let maximum: UnsafeMutablePointer<Float>
  let total: UnsafeMutablePointer<Float>
  let factor: UnsafeMutablePointer<Float>
  let correction: UnsafeMutablePointer<Float>

  init(shape: AttentionShape, precision: ProductPrecision, scoreTileCount: Int) {
    self.precision = precision
    let rows = AttentionTiles.queryCount
    let tileRows = min(rows, shape.queryCount)
    let tileKeys = min(AttentionTiles.keyCount, shape.keyCount)
    // The three kinds of products of a tile: scores, outputs or dq, and dk or dv.
    let packingByteCount = [
      (tileRows, shape.headWidth, tileKeys), (tileRows, tileKeys, shape.headWidth),
      (tileKeys, tileRows, shape.headWidth),
    ].map { rows, inner, columns in
      productWorkspaceByteCount(precision, rows: rows, inner: inner, columns: columns)
    }.reduce(64, max)
    unsafe packing = .allocate(byteCount: packingByteCount, alignment: 64)
    tileElementCount = tileRows * Self.rounded(tileKeys)
    let elementCount = scoreTileCount * tileElementCount + 4 * rows + shape.keyCount
    unsafe memory = .allocate(byteCount: elementCount * 4, alignment: 64)
    unsafe floats = memory.bindMemory(to: Float.self, capacity: elementCount)
    unsafe maximum = floats + scoreTileCount * tileElementCount
    unsafe total = maximum + rows
    unsafe factor = total + rows
    unsafe correction = factor + rows
    unsafe biasRow = correction + rows
  }

  deinit {
    unsafe memory.deallocate()
    unsafe packing.deallocate()
  }

  /// c = scale · a b, or c += scale · a b, where c has the rows of a.
  @unsafe
  func product(
    _ a: HeadRows, _ b: HeadRows, _ inner: Int, _ scale: Float, _ accumulating: Bool,
    into c: HeadRows, columns: Int? = nil
  ) {
    unsafe multiplyStrided(
      StridedOperand(a.base, stride: a.stride, isTransposed: a.isTransposed),
      StridedOperand(b.base, stride: b.stride, isTransposed: b.isTransposed), scale: scale,
      accumulating: accumulating, precision: precision, rows: c.rows, inner: inner,
      columns: columns ?? b.rows, into: c.base, stride: c.stride, workspace: packing)
  }

  private static func rounded(_ count: Int) -> Int { (count + 15) / 16 * 16 }

  @unsafe
  func scores(_ rows: Int, _ tile: KeyTile) -> HeadRows {
    unsafe HeadRows(floats, rows, Self.rounded(tile.count))
  }

  @unsafe
  func scoreGradients(_ rows: Int, _ tile: KeyTile) -> HeadRows {
    unsafe HeadRows(floats + tileElementCount, rows, Self.rounded(tile.count))
  }

  @unsafe
  func bias(of tile: KeyTile) -> UnsafePointer<Float>? {
    tile.isMasked ? unsafe UnsafePointer(biasRow + tile.first) : nil
  }

  /// The tiles of a sample that have a visible key; fills the mask row.
  func keyTiles(of sample: Int, _ mask: AttentionMask?, _ shape: AttentionShape) -> [KeyTile] {
    var tiles: [KeyTile] = []
    for first in stride(from: 0, to: shape.keyCount, by: AttentionTiles.keyCount) {
      let count = min(AttentionTiles.keyCount, shape.keyCount - first)
      var visibleCount = count
      if let mask {
        visibleCount = 0
        for j in first..<(first + count) {
          let isVisible = mask.visibleKeys[sample * shape.keyCount + j] != 0
          unsafe biasRow[j] = isVisible ? 0 : -.infinity
          visibleCount += isVisible ? 1 : 0
        }
      }
      guard visibleCount > 0 else { continue }
      tiles.append(KeyTile(first: first, count: count, isMasked: visibleCount < count))
    }
    return tiles
  }
}
