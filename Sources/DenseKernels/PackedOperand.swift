// The right operand of products, packed ahead: for an operand that many products read, packing it every
// time costs a tenth of a product of a few hundred rows.

import CKernels

/// A matrix in the words that our kernels read a right operand in. It says what the matrix was when it was
/// packed: whoever changes the elements packs again. A product gives the same bits with and without it.
package struct PackedOperand {
  /// Of the matrix.
  package let rowCount: Int
  package let columnCount: Int
  package let precision: ProductPrecision
  let words: Buffer<UInt32>
  /// Words from one panel of columns to the next.
  let panelStride: Int

  private init(
    rows: Int, columns: Int, precision: ProductPrecision, words: Buffer<UInt32>, panelStride: Int
  ) {
    rowCount = rows
    columnCount = columns
    self.precision = precision
    self.words = words
    self.panelStride = panelStride
  }

  /// Words of 32 bits that a packed matrix takes; nil where there is no kernel that would read them.
  package static func wordCount(
    rows: Int, columns: Int, precision: ProductPrecision
  ) -> Int? {
    guard precision.hasKernel && rows > 0 && columns > 0 else { return nil }
    let panelCount = (columns + panelWidth - 1) / panelWidth
    return panelCount * panelStride(rows: rows, precision: precision)
  }

  /// - Parameter words: as many as `wordCount` says.
  /// - Precondition: there is a kernel for the precision.
  init(_ b: Matrix<Float>, precision: ProductPrecision, into words: Buffer<UInt32>) {
    let (rows, columns) = b.logicalSize
    guard let count = Self.wordCount(rows: rows, columns: columns, precision: precision) else {
      preconditionFailure("nothing reads a packed operand of \(precision) on this CPU")
    }
    requireCount(words.count, count, "packed words")
    self.init(
      rows: rows, columns: columns, precision: precision, words: words,
      panelStride: Self.panelStride(rows: rows, precision: precision))
    unsafe w2svd_pack_panels(
      precision == .bfloat16 ? 1 : 0, b.buffer.base, max(b.stride, b.columnCount, 1),
      b.isTransposed ? 1 : 0, rows, columns, words.base)
  }

  /// Some of the columns, from the beginning of a panel on.
  func columns(_ range: Range<Int>) -> PackedOperand {
    precondition(range.lowerBound.isMultiple(of: Self.panelWidth), "\(range) is inside a panel")
    let first = range.lowerBound / Self.panelWidth * panelStride
    return PackedOperand(
      rows: rowCount, columns: range.count, precision: precision,
      words: words[first..<words.count], panelStride: panelStride)
  }

  private static let panelWidth = Int(W2SVD_TILE_COLUMNS)

  private static func panelStride(rows: Int, precision: ProductPrecision) -> Int {
    let wordWidth = precision == .bfloat16 ? 2 : 1
    return (rows + wordWidth - 1) / wordWidth * panelWidth
  }
}

extension Float {
  package static func packed(
    _ b: Matrix<Self>, precision: ProductPrecision, allocate: (_ count: Int) -> Buffer<UInt32>
  ) -> PackedOperand? {
    let (rows, columns) = b.logicalSize
    return PackedOperand.wordCount(rows: rows, columns: columns, precision: precision).map {
      PackedOperand(b, precision: precision, into: allocate($0))
    }
  }
}
