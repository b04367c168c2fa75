import TestSupport
import Testing

@testable import DenseKernels

struct MatrixProductsTests {
  struct Case: Sendable {
    let rows: Int
    let inner: Int
    let columns: Int
    let extraStride: Int
  }

  static let cases = [
    Case(rows: 1, inner: 1, columns: 1, extraStride: 0),
    Case(rows: 3, inner: 17, columns: 5, extraStride: 4),
    Case(rows: 63, inner: 65, columns: 129, extraStride: 0),
    Case(rows: 65, inner: 3, columns: 64, extraStride: 7),
    Case(rows: 7, inner: 0, columns: 5, extraStride: 0),
  ]

  /// Around the tile of 12 × 32, the blocks of 240 rows, 512 k and 1024 columns, and pairs of k.
  static let blockCases = [
    Case(rows: 12, inner: 2, columns: 32, extraStride: 0),
    Case(rows: 13, inner: 31, columns: 17, extraStride: 3),
    Case(rows: 11, inner: 33, columns: 49, extraStride: 1),
    Case(rows: 241, inner: 513, columns: 16, extraStride: 0),
    Case(rows: 25, inner: 1025, columns: 33, extraStride: 5),
    Case(rows: 14, inner: 5, columns: 1025, extraStride: 0),
    Case(rows: 481, inner: 64, columns: 1, extraStride: 2),
  ]

  private func matrix<S: KernelScalar>(
    _: S.Type, _ rows: Int, _ columns: Int, _ extra: Int, isTransposed: Bool, _ number: Int
  ) -> Matrix<S> {
    let (stored, width) = isTransposed ? (columns, rows) : (rows, columns)
    return Matrix(
      normals(max(1, stored * (width + extra)), number), rows: stored, columns: width,
      stride: width + extra, isTransposed: isTransposed)
  }

  /// c = scale Σ a b (+ c) from the definition, in Float64.
  private func expected(
    _ a: Matrix<Double>, _ b: Matrix<Double>, _ c: Matrix<Double>, _ keep: Double,
    _ precision: ProductPrecision
  ) -> [Double] {
    func element(_ m: Matrix<Double>, _ i: Int, _ j: Int) -> Double {
      let x = m.buffer[m.isTransposed ? j * m.stride + i : i * m.stride + j]
      return precision == .float32 ? x : Self.nearestBFloat16(x)
    }
    var result = c.buffer.array
    for i in 0..<c.rowCount {
      for j in 0..<c.columnCount {
        var sum = 0.0
        for k in 0..<a.logicalSize.columns { sum += element(a, i, k) * element(b, k, j) }
        result[i * c.stride + j] = keep * result[i * c.stride + j] + 0.5 * sum
      }
    }
    return result
  }

  /// The multiple of the last of eight significant bits that is nearest, the even one of two.
  private static func nearestBFloat16(_ x: Double) -> Double {
    guard x != 0 else { return 0 }
    let unit = Double(sign: .plus, exponent: x.exponent - 7, significand: 1)
    return (x / unit).rounded(.toNearestOrEven) * unit
  }

  private func product<S: KernelScalar>(
    _: S.Type, _ test: Case, _ transposesA: Bool, _ transposesB: Bool, accumulating: Bool,
    precision: ProductPrecision = .float32
  ) -> (actual: [S], expected: [Double]) {
    func operands<T: KernelScalar>(_: T.Type) -> (Matrix<T>, Matrix<T>, Matrix<T>) {
      (
        matrix(T.self, test.rows, test.inner, test.extraStride, isTransposed: transposesA, 1),
        matrix(T.self, test.inner, test.columns, test.extraStride, isTransposed: transposesB, 2),
        matrix(T.self, test.rows, test.columns, test.extraStride, isTransposed: false, 3)
      )
    }
    let (a, b, c) = operands(S.self)
    S.multiply(a, b, scale: 0.5, accumulating: accumulating, precision: precision, into: c)
    let (a64, b64, c64) = operands(Double.self)
    return (c.buffer.array, expected(a64, b64, c64, accumulating ? 1 : 0, precision))
  }

  /// A sum of `inner` products of normals: inner · ε times their magnitude of about 8 at most.
  /// What lies between the columns and the stride must stay as it was, and the bound checks it too.
  @Test(arguments: cases + blockCases, ProductPrecision.allCases)
  func `products agree with the definition for every transposition`(
    test: Case, precision: ProductPrecision
  ) {
    for accumulating in [false, true] {
      expectAgreement(test, accumulating: accumulating, precision: precision)
    }
  }

  private func expectAgreement(_ test: Case, accumulating: Bool, precision: ProductPrecision) {
    for (transposesA, transposesB) in [(false, false), (false, true), (true, false), (true, true)] {
      let label = "\(test) \(transposesA) \(transposesB) \(accumulating)"
      let bound = Double(test.inner + 2) * 8
      let fast = product(
        Float.self, test, transposesA, transposesB, accumulating: accumulating,
        precision: precision)
      #expect(
        difference(fast.actual.map(Double.init), fast.expected, absolute: bound * epsilon) == nil,
        "\(label)")
      let slow = product(
        Double.self, test, transposesA, transposesB, accumulating: accumulating,
        precision: precision)
      #expect(
        difference(slow.actual, slow.expected, absolute: bound * Double.ulpOfOne) == nil,
        "\(label)")
    }
  }

  @Test func `two runs give equal bits`() {
    let test = Case(rows: 320, inner: 192, columns: 576, extraStride: 0)
    let runs = (0..<2).map { _ in
      product(Float.self, test, false, true, accumulating: false).actual
    }
    #expect(runs[0] == runs[1])
  }

  @Test func `splitting the rows of a product of bfloat16 operands changes no bit`() {
    let test = Case(rows: 500, inner: 300, columns: 70, extraStride: 0)
    let a: Buffer<Float> = normals(test.rows * test.inner, 1)
    let b = Matrix<Float>(
      normals(test.inner * test.columns, 2), rows: test.inner, columns: test.columns)
    let (whole, split) = (
      Buffer<Float>(zeroed: test.rows * test.columns),
      Buffer<Float>(zeroed: test.rows * test.columns)
    )
    func multiply(_ rows: Range<Int>, into target: Buffer<Float>) {
      Float.multiply(
        Matrix(
          a[(rows.lowerBound * test.inner)..<(rows.upperBound * test.inner)], rows: rows.count,
          columns: test.inner), b, scale: 1, accumulating: false, precision: .bfloat16,
        into: Matrix(
          target[(rows.lowerBound * test.columns)..<(rows.upperBound * test.columns)],
          rows: rows.count, columns: test.columns))
    }
    multiply(0..<500, into: whole)
    for rows in [0..<1, 1..<242, 242..<500] { multiply(rows, into: split) }
    #expect(whole.array == split.array)
  }

  /// What canonical sums stand on: few rows and narrow results too, where the fastest kernel is another one.
  @Test(
    .enabled(if: BLASRuntime.hasAVX512), arguments: ProductPrecision.allCases,
    [(40, 48, 64), (13, 64, 3), (300, 96, 5)])
  func `parts of a product by the same kernel have the bits of the whole`(
    precision: ProductPrecision, sizes: (rows: Int, inner: Int, columns: Int)
  ) {
    let (rows, inner, columns) = sizes
    let a: Buffer<Float> = normals(rows * inner, 1)
    let b: Buffer<Float> = normals(inner * columns, 2)
    func multiply(_ rowRange: Range<Int>, _ columnRange: Range<Int>, into target: Buffer<Float>) {
      let (left, right) = (
        Matrix(
          a[rowRange.lowerBound * inner..<rowRange.upperBound * inner], rows: rowRange.count,
          columns: inner),
        Matrix(
          b[columnRange.lowerBound..<b.count], rows: inner, columns: columnRange.count,
          stride: columns)
      )
      let c = Matrix(
        target[rowRange.lowerBound * columns + columnRange.lowerBound..<target.count],
        rows: rowRange.count, columns: columnRange.count, stride: columns)
      Float.multiply(
        left, right, scale: 0.5, accumulating: false, precision: precision,
        choice: .sameForParts, into: c)
      Float.multiply(
        sumOf: [(left, right), (left, right)], packed: nil, addingToRows: nil,
        precision: precision, choice: .sameForParts,
        into: Matrix(
          target[
            rows * columns + rowRange.lowerBound * columns + columnRange.lowerBound..<target.count],
          rows: rowRange.count, columns: columnRange.count, stride: columns))
    }
    let whole: Buffer<Float> = poisoned(2 * rows * columns)
    multiply(0..<rows, 0..<columns, into: whole)
    for rowCuts in [[0, rows], [0, 1, rows], [0, 5, 12, rows]] {
      for columnCuts in [[0, columns], [0, 1, columns]] {
        let parts: Buffer<Float> = poisoned(2 * rows * columns)
        for (firstRow, endRow) in zip(rowCuts, rowCuts.dropFirst()) {
          for (first, end) in zip(columnCuts, columnCuts.dropFirst()) {
            multiply(firstRow..<endRow, first..<end, into: parts)
          }
        }
        #expect(parts.array == whole.array, "\(rowCuts), \(columnCuts)")
      }
    }
  }

  /// The products of slices, right to the last bit: each by itself, then the tree; of a part of the slices, rows and
  /// columns likewise. Slices of one block along k and of several, of two terms, of odd length.
  @Test(
    .enabled(if: BLASRuntime.hasAVX512), arguments: [ProductPrecision.float32, .bfloat16],
    [
      (40, [8], 33), (13, [48, 16], 70), (300, [264], 40), (1000, [600, 10], 1100), (7, [5, 3], 9),
    ])
  func `products of slices are a tree of products`(
    precision: ProductPrecision, sizes: (rows: Int, inners: [Int], columns: Int)
  ) {
    let (rows, inners, columns) = sizes
    let a: [Buffer<Float>] = inners.enumerated().map { normals(rows * 8 * $1, 10 + $0) }
    let b: [Buffer<Float>] = inners.enumerated().map { normals(8 * $1 * columns, 20 + $0) }
    let bias: Buffer<Float> = normals(columns, 3)
    func slice(_ s: Int) -> [(a: Matrix<Float>, b: Matrix<Float>)] {
      inners.indices.map { t in
        let inner = inners[t]
        return (
          Matrix(a[t][s * inner..<a[t].count], rows: rows, columns: inner, stride: 8 * inner),
          Matrix(
            b[t][s * inner..<b[t].count], rows: columns, columns: inner, stride: 8 * inner
          ).transposed
        )
      }
    }
    func product(_ slices: Range<Int>, bias: Buffer<Float>? = nil) -> Buffer<Float> {
      let c: Buffer<Float> = poisoned(rows * columns)
      Float.multiply(
        slices: slices.map(slice), packed: nil, scale: 0.7, addingToRows: bias,
        precision: precision, into: Matrix(c, rows: rows, columns: columns))
      return c
    }
    for count in [2, 4, 8] {
      let parts = (0..<count).map { product($0..<$0 + 1) }
      let tree = (0..<rows * columns).map { index -> Float in
        var sums = parts.map { $0[index] }
        while sums.count > 1 {
          sums = stride(from: 0, to: sums.count, by: 2).map { sums[$0] + sums[$0 + 1] }
        }
        return sums[0] + bias[index % columns]
      }
      #expect(product(0..<count, bias: bias).array == tree, "\(count) slices")
    }
    // A slice by itself is a product like others, up to the order of sums. 40 rows of the largest will do.
    let alone = product(3..<4)
    let wrong = stride(from: 0, to: rows, by: max(1, rows / 40)).flatMap { r in
      (0..<columns).filter { j in
        var (sum, magnitude) = (0.0, 1.0)
        for (t, inner) in inners.enumerated() {
          for k in 3 * inner..<4 * inner {
            let x = Double(precision.rounded(a[t][r * 8 * inner + k]))
            let w = Double(precision.rounded(b[t][j * 8 * inner + k]))
            sum += x * w
            magnitude += abs(x * w)
          }
        }
        return !(abs(Double(alone[r * columns + j]) - 0.7 * sum) <= 1e-6 * magnitude)
      }.map { "row \(r), column \($0)" }
    }
    #expect(wrong.isEmpty)
  }

  @Test(.enabled(if: BLASRuntime.hasAVX512), arguments: [ProductPrecision.float32, .bfloat16])
  func `slices read what is packed ahead`(precision: ProductPrecision) {
    let (rows, inner, columns) = (50, 24, 45)
    let a: Buffer<Float> = normals(rows * 4 * inner, 1)
    let b: Buffer<Float> = normals(4 * inner * columns, 2)
    let whole = Matrix(b, rows: columns, columns: 4 * inner).transposed
    let packed = Float.packed(whole, precision: precision) { Buffer(zeroed: $0) }
    func product(_ packed: PackedOperand?) -> [Float] {
      let c: Buffer<Float> = poisoned(rows * columns)
      Float.multiply(
        slices: (0..<4).map { s in
          [
            (
              Matrix(a[s * inner..<a.count], rows: rows, columns: inner, stride: 4 * inner),
              Matrix(b[s * inner..<b.count], rows: columns, columns: inner, stride: 4 * inner)
                .transposed
            )
          ]
        }, packed: packed, scale: 1, addingToRows: nil, precision: precision,
        into: Matrix(c, rows: rows, columns: columns))
      return c.array
    }
    #expect(precision == .bfloat16 || packed != nil)
    #expect(product(packed) == product(nil))
  }

  /// What lets data-parallel and sequence-parallel layouts agree in every bit (specs §6). It holds
  /// for the AVX-512 kernels only, so under others this test has nothing to say.
  @Test(.enabled(if: ["SkylakeX", "Cooperlake"].contains(BLASRuntime.coreName)))
  func `splitting the rows of a large product changes no bit`() {
    let (rows, inner, columns) = (512, 256, 384)
    let a: Buffer<Float> = normals(rows * inner, 1)
    let b = Matrix<Float>(normals(inner * columns, 2), rows: inner, columns: columns)
    let (whole, split): (Buffer<Float>, Buffer<Float>) = (
      poisoned(rows * columns), poisoned(rows * columns)
    )
    for (target, parts) in [(whole, 1), (split, 4)] {
      let height = rows / parts
      for part in 0..<parts {
        let first = part * height
        Float.multiply(
          Matrix(a[(first * inner)..<((first + height) * inner)], rows: height, columns: inner), b,
          scale: 1, accumulating: false,
          into: Matrix(
            target[(first * columns)..<((first + height) * columns)], rows: height,
            columns: columns))
      }
    }
    #expect(whole.array == split.array)
  }

  /// Widths that meet inside a block, at a block's end, and such that no kernel joins.
  @Test(
    arguments: [[64, 32, 20], [480, 64], [512, 96, 1], [20, 30], [96]], ProductPrecision.allCases)
  func `a sum of products with a bias agrees with the definition`(
    inners: [Int], precision: ProductPrecision
  ) {
    let (rows, columns) = (25, 50)
    func terms<S: KernelScalar>(_: S.Type, _ transposes: (Bool, Bool)) -> [(
      a: Matrix<S>, b: Matrix<S>
    )] {
      inners.enumerated().map { index, inner in
        (
          matrix(S.self, rows, inner, 3, isTransposed: transposes.0, 2 * index),
          matrix(S.self, inner, columns, 5, isTransposed: transposes.1, 2 * index + 1)
        )
      }
    }
    for transposes in [(false, true), (false, false), (true, false)] {
      for hasBias in [true, false] {
        let actual: Buffer<Float> = poisoned(rows * columns)
        Float.multiply(
          sumOf: terms(Float.self, transposes), addingToRows: hasBias ? normals(columns, 9) : nil,
          precision: precision, into: Matrix(actual, rows: rows, columns: columns))
        let definition = Buffer<Double>(zeroed: rows * columns)
        let c = Matrix(definition, rows: rows, columns: columns)
        for term in terms(Double.self, transposes) {
          definition.copy(from: Buffer(expected(term.a, term.b, c, 1, precision)))
        }
        let bias: Buffer<Double> = normals(columns, 9)
        // `expected` halves each product.
        let sums = definition.array.enumerated().map { index, half in
          2 * half + (hasBias ? bias[index % columns] : 0)
        }
        let bound = 4 * Double(inners.reduce(0, +)) * epsilon
        DenseKernelsTests.expectAgreement(
          doubles(actual), [sums], absolute: bound, relative: bound,
          "\(inners) \(precision) \(transposes) \(hasBias)")
      }
    }
  }

  /// The last terms are packed as they come; a block of 512 k begins in one and ends in the other.
  @Test(
    arguments: [[64, 32, 20], [480, 64], [512, 96], [1056, 32], [31], [2]],
    ProductPrecision.allCases)
  func `a right operand that was packed ahead gives the same bits`(
    inners: [Int], precision: ProductPrecision
  ) {
    let rows = 250
    for (columns, packedTerms) in [(50, 1), (1030, 1), (33, max(1, inners.count - 1))] {
      let ready = inners.prefix(packedTerms).reduce(0, +)
      // The packed terms are one weight, as W of inputs side by side.
      let weight: Matrix<Float> = matrix(
        Float.self, ready, columns, 7, isTransposed: true, 1)
      var first = 0
      let terms = inners.enumerated().map { index, inner in
        defer { first += inner }
        let b: Matrix<Float> =
          first < ready
          ? Matrix(
            weight.buffer[first..<weight.buffer.count], rows: columns, columns: inner,
            stride: weight.stride, isTransposed: true)
          : matrix(Float.self, inner, columns, 5, isTransposed: true, 20 + index)
        return (a: matrix(Float.self, rows, inner, 3, isTransposed: false, 10 + index), b: b)
      }
      let packed = Float.packed(weight, precision: precision, allocate: Buffer.init(zeroed:))
      #expect((packed == nil) == !precision.hasKernel)
      let bias: Buffer<Float> = normals(columns, 9)
      let results = [nil, packed].map { packed in
        let c: Buffer<Float> = poisoned(rows * columns)
        Float.multiply(
          sumOf: terms, packed: packed, addingToRows: bias, precision: precision,
          into: Matrix(c, rows: rows, columns: columns))
        return c.array
      }
      #expect(results[0] == results[1], "\(columns) columns, \(ready) packed")
    }
  }
}
