// The products of flash attention and the softmax between them, for one block of queries and one tile
// of keys at a time.
//
// Two ways: operands packed once per head and block for our kernels, scores becoming operands as the
// softmax passes over them; and rows where they lie, for OpenBLAS, on CPUs without AVX-512 and for
// heads wider than a packed row.

import CKernels

/// How attention is cut: scores of `queryCount` × `keyCount` exist at a time.
enum AttentionTiles {
  /// Whole tiles of the product kernel.
  static let queryCount = 10 * Int(W2SVD_TILE_ROWS)
  /// What a packed row of scores holds.
  static let keyCount = 256
}

/// Keys that are taken together.
struct KeyTile {
  let first: Int
  let count: Int
  /// Whether some of its keys may not be seen.
  let isMasked: Bool
}

/// What the passes of one (sample, head) ask for, in this order: `begin` for the keys, `begin` for a
/// block of queries, then for each tile `softmax` (forward) or `weigh` (backward) and the products
/// that read what it left.
protocol AttentionProducts: AnyObject {
  func begin(keys: HeadRows, values: HeadRows, tiles: [KeyTile])
  func begin(queries: HeadRows)
  func begin(queries: HeadRows, outputGradients: HeadRows)
  /// p = exp(scale · q kᵀ − maximum); updates the rows' maximum, total and factor.
  func softmax(of tile: KeyTile, _ rows: AttentionRows)
  /// p = exp(scale · q kᵀ − maximum) and ds = p (do vᵀ − correction) scale.
  func weigh(_ tile: KeyTile, _ rows: AttentionRows)
  /// Forward: p v; backward: ds k.
  func multiply(_ tile: KeyTile, into rows: HeadRows, accumulating: Bool)
  /// pᵀ do.
  func multiply(_ tile: KeyTile, intoValues rows: HeadRows, accumulating: Bool)
  /// dsᵀ q.
  func multiply(_ tile: KeyTile, intoKeys rows: HeadRows, accumulating: Bool)
}

/// Rows of one head among its neighbors.
@safe
struct HeadRows {
  let base: UnsafeMutablePointer<Float>
  let count: Int
  let stride: Int

  init(_ buffer: Buffer<Float>, at start: Int, _ count: Int, _ stride: Int) {
    unsafe base = buffer.base + start
    self.count = count
    self.stride = stride
  }

  /// No rows, before there are any.
  init(noneAt base: UnsafeMutablePointer<Float>) {
    unsafe self.base = base
    count = 0
    stride = 0
  }

  @unsafe
  func row(_ index: Int) -> UnsafeMutablePointer<Float> { unsafe base + index * stride }

  @unsafe
  func operand(of tile: KeyTile? = nil) -> StridedOperand {
    unsafe StridedOperand(row(tile?.first ?? 0), stride: stride)
  }
}

extension AttentionShape {
  /// Elements from token to token.
  var rowStride: Int { headCount * headWidth }
  var scoreScale: Float { 1 / Float(headWidth).squareRoot() }
}

/// A few numbers per query of a block, and the mask of a sample's keys.
@safe
final class AttentionRows {
  private let shape: AttentionShape
  private let mask: AttentionMask?
  private let bias: UnsafeMutablePointer<Float>
  let maximum: UnsafeMutablePointer<Float>
  let total: UnsafeMutablePointer<Float>
  let factor: UnsafeMutablePointer<Float>
  let correction: UnsafeMutablePointer<Float>

  init(_ shape: AttentionShape, _ mask: AttentionMask?) {
    self.shape = shape
    self.mask = mask
    let count = AttentionTiles.queryCount
    unsafe maximum = .allocate(capacity: 4 * count + (mask == nil ? 0 : shape.keyCount))
    unsafe total = maximum + count
    unsafe factor = total + count
    unsafe correction = factor + count
    unsafe bias = correction + count
  }

  deinit { unsafe maximum.deallocate() }

  /// Before the first tile of a block of queries.
  func begin(_ count: Int) {
    unsafe maximum.update(repeating: -.infinity, count: count)
    unsafe total.update(repeating: 0, count: count)
  }

  /// 0 or −∞ for each key of the tile; nil where all are visible.
  @unsafe
  func bias(of tile: KeyTile) -> UnsafePointer<Float>? {
    tile.isMasked ? unsafe UnsafePointer(bias + tile.first) : nil
  }

  /// The tiles of a sample that have a visible key; fills the mask row.
  func keyTiles(of sample: Int) -> [KeyTile] {
    var tiles: [KeyTile] = []
    for first in stride(from: 0, to: shape.keyCount, by: AttentionTiles.keyCount) {
      let count = min(AttentionTiles.keyCount, shape.keyCount - first)
      var visibleCount = count
      if let mask {
        visibleCount = 0
        for j in first..<(first + count) {
          let isVisible = mask.visibleKeys[sample * shape.keyCount + j] != 0
          unsafe bias[j] = isVisible ? 0 : -.infinity
          visibleCount += isVisible ? 1 : 0
        }
      }
      guard visibleCount > 0 else { continue }
      tiles.append(KeyTile(first: first, count: count, isMasked: visibleCount < count))
    }
    return tiles
  }
}

/// Packed operands for the kernels of products.c.
@safe
final class PackedAttention: AttentionProducts {
  private typealias Words = UnsafeMutablePointer<UInt32>

  private let isBFloat16: Int32
  /// Elements along a sum in a word.
  private let wordWidth: Int
  private let isBackward: Bool
  private let width: Int
  private let scale: Float
  private let memory: Words
  /// Right operands of a whole head: kᵀ, and v (forward) or vᵀ (backward), and k (backward).
  private let keysCrossed: Words
  private let values: Words
  private let keys: Words
  /// Operands of a block: left, and right ones for sums over queries.
  private let queryRows: Words
  private let gradientRows: Words
  private let queryPanels: Words
  private let gradientPanels: Words
  /// What a tile leaves: p and ds, and in bfloat16 both crossed.
  private let scores: Words
  private let scoreGradients: Words
  private let weightPairs: Words
  private let gradientPairs: Words
  private var queryCount = 0

  /// Nil where our kernels do not take this.
  init?(_ shape: AttentionShape, _ precision: ProductPrecision, isBackward: Bool) {
    wordWidth = precision == .bfloat16 ? 2 : 1
    guard precision.hasKernel, shape.headWidth <= wordWidth * Self.rowWordCount else { return nil }
    isBFloat16 = precision == .bfloat16 ? 1 : 0
    self.isBackward = isBackward
    width = shape.headWidth
    scale = shape.scoreScale
    let (words, width) = (wordWidth, width)
    func panels(_ inner: Int, _ columns: Int) -> Int {
      (inner + words - 1) / words * Self.rounded(columns, W2SVD_TILE_COLUMNS)
    }
    let blockRows = Self.rounded(
      min(shape.queryCount, AttentionTiles.queryCount), W2SVD_TILE_ROWS)
    let block = blockRows * Int(W2SVD_ROW_STRIDE)
    let crossed = panels(width, shape.keyCount)
    let straight = panels(Self.rounded(shape.keyCount, 2), width)
    let blockPanels = isBackward ? panels(blockRows, width) : 0
    let pairs = isBackward && words == 2 ? block / 2 : 0
    let counts = [
      crossed, isBackward ? crossed : straight, isBackward ? straight : 0, block,
      isBackward ? block : 0, blockPanels, blockPanels, block, isBackward ? block : 0, pairs,
      pairs,
    ].map { Self.rounded($0, 16) }
    var (starts, count) = ([Int](), 0)
    for part in counts {
      starts.append(count)
      count += part
    }
    unsafe memory = UnsafeMutableRawPointer.allocate(byteCount: 4 * count, alignment: 64)
      .bindMemory(to: UInt32.self, capacity: count)
    unsafe keysCrossed = memory
    unsafe values = memory + starts[1]
    unsafe keys = memory + starts[2]
    unsafe queryRows = memory + starts[3]
    unsafe gradientRows = memory + starts[4]
    unsafe queryPanels = memory + starts[5]
    unsafe gradientPanels = memory + starts[6]
    unsafe scores = memory + starts[7]
    unsafe scoreGradients = memory + starts[8]
    unsafe weightPairs = memory + starts[9]
    unsafe gradientPairs = memory + starts[10]
  }

  deinit { unsafe memory.deallocate() }

  private static let rowWordCount = 256

  private static func rounded(_ count: Int, _ unit: Int32) -> Int {
    (count + Int(unit) - 1) / Int(unit) * Int(unit)
  }

  private func depth(_ count: Int) -> Int { (count + wordWidth - 1) / wordWidth }

  func begin(keys: HeadRows, values: HeadRows, tiles: [KeyTile]) {
    unsafe pack(keys, crossedInto: keysCrossed)
    if isBackward {
      unsafe pack(values, crossedInto: self.values)
      for tile in tiles { unsafe pack(keys, tile, into: self.keys) }
    } else {
      for tile in tiles { unsafe pack(values, tile, into: self.values) }
    }
  }

  private func pack(_ rows: HeadRows, crossedInto words: Words) {
    unsafe w2svd_pack_panels(isBFloat16, rows.base, rows.stride, 1, width, rows.count, words)
  }

  private func pack(_ rows: HeadRows, _ tile: KeyTile, into words: Words) {
    unsafe w2svd_pack_panels(
      isBFloat16, rows.row(tile.first), rows.stride, 0, tile.count, width,
      straight(words, of: tile))
  }

  private func crossed(_ words: Words, of tile: KeyTile) -> Words {
    unsafe words + tile.first * depth(width)
  }

  private func straight(_ words: Words, of tile: KeyTile) -> Words {
    unsafe words + depth(tile.first) * Self.rounded(width, W2SVD_TILE_COLUMNS)
  }

  func begin(queries: HeadRows) {
    queryCount = queries.count
    unsafe pack(queries, into: queryRows)
  }

  func begin(queries: HeadRows, outputGradients: HeadRows) {
    begin(queries: queries)
    unsafe pack(outputGradients, into: gradientRows)
    unsafe pack(queries, panels: queryPanels)
    unsafe pack(outputGradients, panels: gradientPanels)
  }

  private func pack(_ rows: HeadRows, panels: Words) {
    unsafe w2svd_pack_panels(isBFloat16, rows.base, rows.stride, 0, rows.count, width, panels)
  }

  private func pack(_ rows: HeadRows, into words: Words) {
    unsafe w2svd_pack_rows(isBFloat16, rows.base, rows.stride, rows.count, width, words)
  }

  func softmax(of tile: KeyTile, _ rows: AttentionRows) {
    unsafe multiply(queryRows, crossed(keysCrossed, of: tile), scale, tile.count, into: scores)
    unsafe w2svd_softmax_words(
      isBFloat16, floats(scores), queryCount, tile.count, rows.bias(of: tile), rows.maximum,
      rows.total, rows.factor)
  }

  func weigh(_ tile: KeyTile, _ rows: AttentionRows) {
    unsafe multiply(queryRows, crossed(keysCrossed, of: tile), scale, tile.count, into: scores)
    unsafe multiply(
      gradientRows, crossed(values, of: tile), 1, tile.count, into: scoreGradients)
    unsafe w2svd_attention_gradients(
      isBFloat16, floats(scores), floats(scoreGradients), queryCount, tile.count,
      rows.bias(of: tile), rows.maximum, rows.correction, scale, weightPairs, gradientPairs)
  }

  /// A tile of scores: rows of a block times columns of a head.
  private func multiply(
    _ rows: Words, _ columns: Words, _ scale: Float, _ count: Int, into tile: Words
  ) {
    unsafe w2svd_multiply_packed(
      isBFloat16, rows, 0, columns, depth(width), floats(tile), Int(W2SVD_ROW_STRIDE), queryCount,
      count, scale, 0)
  }

  func multiply(_ tile: KeyTile, into rows: HeadRows, accumulating: Bool) {
    let (left, right) = unsafe isBackward ? (scoreGradients, keys) : (scores, values)
    unsafe w2svd_multiply_packed(
      isBFloat16, left, 0, straight(right, of: tile), depth(tile.count), rows.base, rows.stride,
      rows.count, width, 1, accumulating ? 1 : 0)
  }

  func multiply(_ tile: KeyTile, intoValues rows: HeadRows, accumulating: Bool) {
    let weights = unsafe wordWidth == 2 ? weightPairs : scores
    unsafe multiplyCrossed(weights, gradientPanels, into: rows, accumulating)
  }

  func multiply(_ tile: KeyTile, intoKeys rows: HeadRows, accumulating: Bool) {
    let gradients = unsafe wordWidth == 2 ? gradientPairs : scoreGradients
    unsafe multiplyCrossed(gradients, queryPanels, into: rows, accumulating)
  }

  private func multiplyCrossed(
    _ left: Words, _ panels: Words, into rows: HeadRows, _ accumulating: Bool
  ) {
    unsafe w2svd_multiply_packed(
      isBFloat16, left, 1, panels, depth(queryCount), rows.base, rows.stride, rows.count, width, 1,
      accumulating ? 1 : 0)
  }

  private func floats(_ words: Words) -> UnsafeMutablePointer<Float> {
    unsafe UnsafeMutableRawPointer(words).assumingMemoryBound(to: Float.self)
  }
}

/// Products on rows where they lie; one or two tiles of scores.
@safe
final class StridedAttention: AttentionProducts {
  private let precision: ProductPrecision
  private let width: Int
  private let scale: Float
  private let isBackward: Bool
  private let scores: UnsafeMutablePointer<Float>
  private let scoreGradients: UnsafeMutablePointer<Float>
  private var keys: HeadRows
  private var values: HeadRows
  private var queries: HeadRows
  private var outputGradients: HeadRows

  init(_ shape: AttentionShape, _ precision: ProductPrecision, isBackward: Bool) {
    self.precision = precision
    self.isBackward = isBackward
    width = shape.headWidth
    scale = shape.scoreScale
    let count = AttentionTiles.queryCount * AttentionTiles.keyCount
    unsafe scores = .allocate(capacity: isBackward ? 2 * count : count)
    unsafe scoreGradients = isBackward ? scores + count : scores
    let none = unsafe HeadRows(noneAt: scores)
    (keys, values, queries, outputGradients) = (none, none, none, none)
  }

  deinit { unsafe scores.deallocate() }

  func begin(keys: HeadRows, values: HeadRows, tiles: [KeyTile]) {
    (self.keys, self.values) = (keys, values)
  }

  func begin(queries: HeadRows) { self.queries = queries }

  func begin(queries: HeadRows, outputGradients: HeadRows) {
    (self.queries, self.outputGradients) = (queries, outputGradients)
  }

  func softmax(of tile: KeyTile, _ rows: AttentionRows) {
    unsafe multiply(queries, keys, tile, scale, into: scores)
    unsafe w2svd_softmax_tile(
      scores, queries.count, tile.count, AttentionTiles.keyCount, rows.bias(of: tile),
      rows.maximum, rows.total, rows.factor)
  }

  func weigh(_ tile: KeyTile, _ rows: AttentionRows) {
    unsafe multiply(queries, keys, tile, scale, into: scores)
    unsafe w2svd_probabilities(
      scores, queries.count, tile.count, AttentionTiles.keyCount, rows.bias(of: tile),
      rows.maximum)
    unsafe multiply(outputGradients, values, tile, 1, into: scoreGradients)
    unsafe w2svd_score_gradients(
      scores, scoreGradients, queries.count, tile.count, AttentionTiles.keyCount,
      rows.correction, scale)
  }

  private func multiply(
    _ rows: HeadRows, _ columns: HeadRows, _ tile: KeyTile, _ scale: Float,
    into target: UnsafeMutablePointer<Float>
  ) {
    unsafe multiplyStrided(
      rows.operand(), columns.operand(of: tile).transposed, scale: scale, accumulating: false,
      precision: precision, rows: rows.count, inner: width, columns: tile.count, into: target,
      stride: AttentionTiles.keyCount)
  }

  func multiply(_ tile: KeyTile, into rows: HeadRows, accumulating: Bool) {
    let (left, right) = unsafe isBackward ? (scoreGradients, keys) : (scores, values)
    unsafe multiplyStrided(
      StridedOperand(left, stride: AttentionTiles.keyCount), right.operand(of: tile), scale: 1,
      accumulating: accumulating, precision: precision, rows: rows.count, inner: tile.count,
      columns: width, into: rows.base, stride: rows.stride)
  }

  func multiply(_ tile: KeyTile, intoValues rows: HeadRows, accumulating: Bool) {
    unsafe multiplyCrossed(scores, outputGradients, into: rows, accumulating)
  }

  func multiply(_ tile: KeyTile, intoKeys rows: HeadRows, accumulating: Bool) {
    unsafe multiplyCrossed(scoreGradients, queries, into: rows, accumulating)
  }

  private func multiplyCrossed(
    _ left: UnsafeMutablePointer<Float>, _ right: HeadRows, into rows: HeadRows,
    _ accumulating: Bool
  ) {
    unsafe multiplyStrided(
      StridedOperand(left, stride: AttentionTiles.keyCount, isTransposed: true), right.operand(),
      scale: 1, accumulating: accumulating, precision: precision, rows: rows.count,
      inner: right.count, columns: width, into: rows.base, stride: rows.stride)
  }
}
