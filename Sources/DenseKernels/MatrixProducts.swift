// Matrix products: our kernels where the CPU has what they need and the operands fill their tiles,
// OpenBLAS elsewhere. Sizes are checked here, at 64 bits, against what the C interfaces take.

import CKernels
import COpenBLAS

extension Float {
  package static func multiply(
    _ a: Matrix<Self>, _ b: Matrix<Self>, scale: Self, accumulating: Bool,
    precision: ProductPrecision, choice: KernelChoice, into c: Matrix<Self>
  ) {
    let (rows, inner, columns) = productSizes(a, b, c)
    guard rows > 0 && columns > 0 else { return }
    unsafe multiplyStrided(
      StridedOperand(a), StridedOperand(b), scale: scale, accumulating: accumulating,
      precision: precision, choice: choice, rows: rows, inner: inner, columns: columns,
      into: c.buffer.base, stride: max(c.stride, c.columnCount, 1))
  }
}

extension Float {
  package static func multiply(
    sumOf terms: [(a: Matrix<Self>, b: Matrix<Self>)], packed: PackedOperand?,
    addingToRows bias: Buffer<Self>?, precision: ProductPrecision, choice: KernelChoice,
    into c: Matrix<Self>
  ) {
    let (rows, columns) = (c.rowCount, c.columnCount)
    let inners = terms.map { productSizes($0.a, $0.b, c).inner }
    if let bias { requireCount(bias.count, columns, "bias") }
    let kernel = ProductKernel(
      precision, choice, rows: rows, inner: inners.reduce(0, +), columns: columns)
    let areAlike = terms.allSatisfy {
      $0.a.isTransposed == terms[0].a.isTransposed && $0.b.isTransposed == terms[0].b.isTransposed
    }
    guard let kernel, areAlike, inners.dropLast().allSatisfy({ $0 > 0 && $0 % 32 == 0 }) else {
      return multiplyInTurn(
        terms, addingToRows: bias, precision: precision, choice: choice, into: c)
    }
    var packedCount = packed?.rowCount ?? 0
    let products = unsafe zip(terms, inners).map { term, inner in
      let isPacked = packedCount > 0
      packedCount -= isPacked ? inner : 0
      return unsafe ProductTerm(
        StridedOperand(term.a), isPacked ? nil : StridedOperand(term.b), inner)
    }
    precondition(packedCount == 0, "what is packed ends inside a term of \(inners)")
    unsafe kernel.multiply(
      products, packed: packed, scale: 1, accumulating: false,
      bias: bias.map { unsafe UnsafePointer($0.base) }, into: c.buffer.base,
      stride: max(c.stride, columns, 1))
  }
}

extension Float {
  package static func multiply(
    slices: [[(a: Matrix<Self>, b: Matrix<Self>)]], packed: PackedOperand?, scale: Self,
    addingToRows bias: Buffer<Self>?, precision: ProductPrecision, into c: Matrix<Self>
  ) {
    let (rows, columns) = (c.rowCount, c.columnCount)
    let terms = slices.joined()
    let inners = slices[0].map { productSizes($0.a, $0.b, c).inner }
    precondition(
      slices.count & (slices.count - 1) == 0
        && slices.allSatisfy { $0.map { productSizes($0.a, $0.b, c).inner } == inners },
      "\(slices.count) slices of \(inners)")
    if let bias { requireCount(bias.count, columns, "bias") }
    guard rows > 0 && columns > 0 else { return }
    let kernel = ProductKernel(
      precision, .sameForParts, rows: rows, inner: inners.reduce(0, +), columns: columns,
      slices: slices.count)
    let areAlike = terms.allSatisfy {
      $0.a.isTransposed == slices[0][0].a.isTransposed
        && $0.b.isTransposed == slices[0][0].b.isTransposed
    }
    // Which way is taken depends on a slice alone, not on how many there are.
    guard let kernel, areAlike, inners.dropLast().allSatisfy({ $0 > 0 && $0 % 2 == 0 }) else {
      return multiplyInTurn(
        slices: slices[...], scale: scale, addingToRows: bias, precision: precision, into: c)
    }
    // Slices of an odd length would lie between the words that a packed operand has.
    let packed = inners.reduce(0, +).isMultiple(of: 2) ? packed : nil
    if let packed {
      requireCount(packed.rowCount, slices.count * inners.reduce(0, +), "packed rows")
    }
    unsafe kernel.multiply(
      terms.map { term in
        unsafe ProductTerm(
          StridedOperand(term.a), packed == nil ? StridedOperand(term.b) : nil,
          term.a.logicalSize.columns)
      }, packed: packed, scale: scale, accumulating: false,
      bias: bias.map { unsafe UnsafePointer($0.base) }, into: c.buffer.base,
      stride: max(c.stride, columns, 1))
  }
}

extension Double {
  package static func multiply(
    _ a: Matrix<Self>, _ b: Matrix<Self>, scale: Self, accumulating: Bool,
    precision: ProductPrecision, choice _: KernelChoice, into c: Matrix<Self>
  ) {
    let (rows, inner, columns) = productSizes(a, b, c)
    guard rows > 0 && columns > 0 else { return }
    let (a, b) = (a.rounded(to: precision), b.rounded(to: precision))
    unsafe cblas_dgemm(
      CblasRowMajor, a.isTransposed ? CblasTrans : CblasNoTrans,
      b.isTransposed ? CblasTrans : CblasNoTrans, blasInteger(rows), blasInteger(columns),
      blasInteger(inner), scale, a.buffer.base, a.leadingSize, b.buffer.base, b.leadingSize,
      accumulating ? 1 : 0, c.buffer.base, c.leadingSize)
  }
}

extension ProductPrecision {
  /// Whether this CPU multiplies in this precision at full speed; elsewhere bfloat16 operands are
  /// rounded and multiplied as Float32: the same products, summed in another order.
  package var isFast: Bool { self == .float32 || cpuMultipliesBFloat16 }

  /// Whether our kernels run in this precision on this CPU.
  var hasKernel: Bool { self == .float32 ? cpuHasAVX512 : cpuMultipliesBFloat16 }
}

// Asked once: a virtual machine may take longer to answer CPUID than a product takes.
private let cpuMultipliesBFloat16 = w2svd_has_bfloat16() != 0
private let cpuHasAVX512 = w2svd_has_avx512() != 0

/// Our kernel for a product of these sizes.
private struct ProductKernel {
  let precision: ProductPrecision
  let rows: Int
  let inner: Int
  let columns: Int
  /// Slices of which each has the inner size.
  let slices: Int

  /// Nil where OpenBLAS is to do it: the CPU lacks the instructions, or, in Float32, the product is so
  /// narrow that most of a tile would be empty and nobody asks for the same kernel all the same.
  init?(
    _ precision: ProductPrecision, _ choice: KernelChoice, rows: Int, inner: Int, columns: Int,
    slices: Int = 1
  ) {
    let fits =
      precision == .bfloat16 || choice == .sameForParts || rows >= 8 && columns >= 16
    guard precision.hasKernel && fits && rows > 0 && inner > 0 && columns > 0 else { return nil }
    self.precision = precision
    self.rows = rows
    self.inner = inner
    self.columns = columns
    self.slices = slices
  }

  /// Bytes that the packed operands take at most.
  var workspaceByteCount: Int {
    switch precision {
    case .float32: w2svd_multiply_float_workspace(rows, inner, columns, slices)
    case .bfloat16: w2svd_multiply_bfloat16_workspace(rows, inner, columns, slices)
    }
  }

  /// c = scale · Σ_t a_t b_t + bias, or c += it.
  @unsafe
  func multiply(
    _ terms: [ProductTerm], packed: PackedOperand? = nil, scale: Float, accumulating: Bool,
    bias: UnsafePointer<Float>?, into c: UnsafeMutablePointer<Float>, stride: Int
  ) {
    if let packed {
      precondition(
        packed.precision == precision && packed.columnCount == columns,
        "\(packed.columnCount) columns packed for \(packed.precision), the product has \(columns)")
    }
    guard KernelThreads.count > 1, isWorthSplitting else {
      return unsafe run(
        terms, packed, scale: scale, accumulating: accumulating, bias: bias, into: c,
        stride: stride, rows: rows, columns: columns)
    }
    if rows >= columns {
      KernelThreads.split((rows + Self.tileRows - 1) / Self.tileRows) { tiles in
        let first = tiles.lowerBound * Self.tileRows
        let count = min(rows, tiles.upperBound * Self.tileRows) - first
        unsafe run(
          terms.map { unsafe ProductTerm($0.a.dropping(rows: first), $0.b, $0.inner) }, packed,
          scale: scale, accumulating: accumulating, bias: bias, into: c + first * stride,
          stride: stride, rows: count, columns: columns)
      }
    } else {
      KernelThreads.split((columns + Self.tileColumns - 1) / Self.tileColumns) { tiles in
        let first = tiles.lowerBound * Self.tileColumns
        let count = min(columns, tiles.upperBound * Self.tileColumns) - first
        unsafe run(
          terms.map {
            unsafe ProductTerm(
              $0.a, $0.b.map { unsafe $0.transposed.dropping(rows: first).transposed },
              $0.inner)
          }, packed?.columns(first..<first + count),
          scale: scale, accumulating: accumulating, bias: bias.map { unsafe $0 + first },
          into: c + first, stride: stride, rows: rows, columns: count)
      }
    }
  }

  /// Parts of a tile's size, as the C kernels cut.
  private static let (tileRows, tileColumns) = (
    Int(W2SVD_TILE_ROWS), Int(W2SVD_TILE_COLUMNS)
  )

  /// Below about 20 µs of work the threads would not meet in time.
  private var isWorthSplitting: Bool { rows * columns * inner * slices > 2_000_000 }

  @unsafe
  private func run(
    _ terms: [ProductTerm], _ packed: PackedOperand?, scale: Float, accumulating: Bool,
    bias: UnsafePointer<Float>?, into c: UnsafeMutablePointer<Float>, stride: Int, rows: Int,
    columns: Int
  ) {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: workspaceByteCount, alignment: 64)
    defer { unsafe memory.deallocate() }
    let kernel =
      unsafe precision == .float32 ? w2svd_multiply_float : w2svd_multiply_bfloat16
    let aCrossed = unsafe terms[0].a.isTransposed
    let bCrossed = unsafe terms.compactMap { unsafe $0.b }.first?.isTransposed ?? false
    let parts = unsafe terms.map { term in
      unsafe w2svd_term(
        a: term.a.base, a_stride: term.a.stride, b: term.b?.base, b_stride: term.b?.stride ?? 0,
        inner: term.inner)
    }
    func run(_ ahead: UnsafePointer<w2svd_packed>?) {
      unsafe kernel(
        parts, parts.count, slices, ahead, aCrossed ? 1 : 0, bCrossed ? 1 : 0, bias, c, stride,
        rows, columns, scale, accumulating ? 1 : 0, memory)
    }
    guard let packed else { return run(nil) }
    let ahead = unsafe w2svd_packed(
      words: packed.words.base, panel_stride: packed.panelStride, inner: packed.rowCount)
    unsafe withUnsafePointer(to: ahead) { unsafe run($0) }
  }
}

/// One of the products that a sum consists of. All terms have a and b crossed alike.
@unsafe
struct ProductTerm {
  let a: StridedOperand
  /// Nil: packed ahead.
  let b: StridedOperand?
  let inner: Int

  init(_ a: StridedOperand, _ b: StridedOperand?, _ inner: Int) {
    unsafe self.a = unsafe a
    unsafe self.b = unsafe b
    unsafe self.inner = inner
  }
}

/// An operand in memory: rows `stride` apart, read as they are or transposed.
@unsafe
struct StridedOperand {
  let base: UnsafePointer<Float>
  let stride: Int
  let isTransposed: Bool

  init(_ base: UnsafePointer<Float>, stride: Int, isTransposed: Bool = false) {
    unsafe self.base = base
    unsafe self.stride = stride
    unsafe self.isTransposed = isTransposed
  }

  init(_ matrix: Matrix<Float>) {
    unsafe self.init(
      matrix.buffer.base, stride: max(matrix.stride, matrix.columnCount, 1),
      isTransposed: matrix.isTransposed)
  }

  var transposed: StridedOperand {
    unsafe StridedOperand(base, stride: stride, isTransposed: !isTransposed)
  }

  /// Without its first rows, as the product sees them.
  func dropping(rows count: Int) -> StridedOperand {
    unsafe StridedOperand(
      base + (isTransposed ? count : count * stride), stride: stride, isTransposed: isTransposed)
  }
}

/// c = scale · a b, or c += scale · a b, on memory whose sizes the caller has checked.
@unsafe
func multiplyStrided(
  _ a: StridedOperand, _ b: StridedOperand, scale: Float, accumulating: Bool,
  precision: ProductPrecision, choice: KernelChoice = .fastest, rows: Int, inner: Int,
  columns: Int, into c: UnsafeMutablePointer<Float>, stride: Int
) {
  if let kernel = ProductKernel(precision, choice, rows: rows, inner: inner, columns: columns) {
    unsafe kernel.multiply(
      [ProductTerm(a, b, inner)], scale: scale, accumulating: accumulating, bias: nil, into: c,
      stride: stride)
    return
  }
  switch precision {
  case .bfloat16:
    let left = unsafe roundedCopy(
      of: a, a.isTransposed ? inner : rows, a.isTransposed ? rows : inner)
    let right = unsafe roundedCopy(
      of: b, b.isTransposed ? columns : inner, b.isTransposed ? inner : columns)
    unsafe multiplyStrided(
      StridedOperand(left), StridedOperand(right), scale: scale, accumulating: accumulating,
      precision: .float32, choice: choice, rows: rows, inner: inner, columns: columns, into: c,
      stride: stride)
  case .float32:
    unsafe cblas_sgemm(
      CblasRowMajor, a.isTransposed ? CblasTrans : CblasNoTrans,
      b.isTransposed ? CblasTrans : CblasNoTrans, blasInteger(rows), blasInteger(columns),
      blasInteger(inner), scale, a.base, blasInteger(a.stride), b.base, blasInteger(b.stride),
      accumulating ? 1 : 0, c, blasInteger(stride))
  }
}

@unsafe
private func roundedCopy(of operand: StridedOperand, _ rows: Int, _ columns: Int) -> Matrix<Float> {
  let copy = Buffer<Float>(zeroed: rows * columns)
  for r in 0..<rows {
    for k in 0..<columns {
      copy[r * columns + k] = unsafe ProductPrecision.bfloat16.rounded(
        operand.base[r * operand.stride + k])
    }
  }
  return Matrix(copy, rows: rows, columns: columns, isTransposed: unsafe operand.isTransposed)
}

extension Matrix where Element == Double {
  /// The matrix with its elements rounded, itself where nothing is to be rounded.
  fileprivate func rounded(to precision: ProductPrecision) -> Matrix {
    guard precision != .float32 else { return self }
    return Matrix(
      Buffer(buffer.array.map { precision.rounded($0) }), rows: rowCount, columns: columnCount,
      stride: stride, isTransposed: isTransposed)
  }
}

extension Matrix {
  /// BLAS wants at least one even for matrices without columns.
  fileprivate var leadingSize: Int32 { blasInteger(max(stride, columnCount, 1)) }
}

/// - Precondition: `value` fits the 32-bit integers of the BLAS interface.
func blasInteger(_ value: Int) -> Int32 {
  precondition(value <= Int(Int32.max), "\(value) does not fit a BLAS integer")
  return Int32(value)
}
