// The kernels that the autodiff layer is written against, for a scalar type.
//
// `Float` runs OpenBLAS and the C loops of CKernels. `Double` runs the slow twins: plain loops with
// the formula beside them, which are the truth in tests and let a whole model be checked by finite
// differences. Conventions:
//   - Buffers are contiguous and row-major; sizes are checked at entry.
//   - Forward kernels overwrite their outputs. Backward kernels add to the gradients they are given;
//     where that is a `GradientBuffer`, it says whether there is something to add to.
//   - A nil gradient is not wanted and not computed.
//   - Sums run in a fixed order, so equal inputs give equal bits.
// Letters: B samples, L tokens of a sample, D width, N heads, K head width, R = B·L rows.

/// A rows × columns matrix stored row by row, `stride` elements apart, read as it is or transposed.
package struct Matrix<Element: BitwiseCopyable> {
  package let buffer: Buffer<Element>
  package let rowCount: Int
  package let columnCount: Int
  package let stride: Int
  package let isTransposed: Bool

  /// - Parameter stride: elements from one stored row to the next; nil means `columns`.
  package init(
    _ buffer: Buffer<Element>, rows: Int, columns: Int, stride: Int? = nil,
    isTransposed: Bool = false
  ) {
    let stride = stride ?? columns
    precondition(
      rows >= 0 && columns >= 0 && stride >= columns
        && (rows == 0 || columns == 0 || (rows - 1) * stride + columns <= buffer.count),
      "a \(rows)×\(columns) matrix of stride \(stride) does not fit \(buffer.count) elements")
    self.buffer = buffer
    self.rowCount = rows
    self.columnCount = columns
    self.stride = stride
    self.isTransposed = isTransposed
  }

  /// The same elements, read with rows and columns exchanged.
  package var transposed: Matrix {
    Matrix(
      buffer, rows: rowCount, columns: columnCount, stride: stride, isTransposed: !isTransposed)
  }

  /// Rows and columns as an operand of a product sees them.
  package var logicalSize: (rows: Int, columns: Int) {
    isTransposed ? (columnCount, rowCount) : (rowCount, columnCount)
  }
}

/// How the operands of a product are read; sums are always in the scalar type.
package enum ProductPrecision: String, CaseIterable, Codable, Sendable {
  /// As they are.
  case float32 = "fp32"
  /// Rounded to the nearest bfloat16 first. A product of two is exact in Float32.
  case bfloat16 = "bf16"

  /// What a product takes an operand's element for.
  package func rounded<Scalar: KernelScalar>(_ x: Scalar) -> Scalar {
    switch self {
    case .float32: return x
    case .bfloat16:
      let bits = Float(x).bitPattern
      guard Float(x).isFinite else { return x }
      return Scalar(Float(bitPattern: (bits &+ 0x7fff &+ (bits >> 16 & 1)) & 0xffff_0000))
    }
  }
}

/// Which kernel multiplies.
package enum KernelChoice: Hashable, Sendable {
  /// The one that is fastest for the sizes.
  case fastest
  /// The same one for any number of rows and columns, so that rows or columns multiplied by themselves have the
  /// bits that they have in the whole; promised with AVX-512 only.
  case sameForParts
}

/// Where a backward kernel puts the gradient of an input.
package struct GradientBuffer<Element: BitwiseCopyable> {
  package let buffer: Buffer<Element>
  /// Whether the kernel adds to what is there; otherwise the content is unspecified, and the kernel
  /// overwrites all of it.
  package let accumulates: Bool

  package init(_ buffer: Buffer<Element>, accumulates: Bool) {
    self.buffer = buffer
    self.accumulates = accumulates
  }

  package var count: Int { buffer.count }
}

extension GradientBuffer where Element: KernelScalar {
  /// The buffer for a kernel that can only add: cleared if there was nothing in it.
  package var addend: Buffer<Element> {
    if !accumulates { buffer.clear() }
    return buffer
  }
}

/// Elementwise functions of one variable with their derivatives.
package enum Activation: Hashable, Sendable {
  /// 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), diffusers' `gelu-approximate`.
  case geluTanh
  /// x / (1 + e^−x).
  case silu
  /// log(1 + e^x), without overflow.
  case softplus
  /// √(x² + c²) − c.
  case pseudoHuber(c: Double)
}

/// Which keys each query of a sample may see.
///
/// Query i of sample b sees every key j with `visibleKeys[b][j]`; an isolated query sees only key 0
/// (diffusers' token refiner gives padding this one key, so that no row is empty).
package struct AttentionMask: Hashable, Sendable {
  /// B × (keys of a sample): nonzero where the key may be seen.
  package let visibleKeys: [UInt8]
  /// B × (queries of a sample): nonzero where the query sees only key 0. Empty: none is isolated.
  package let isolatedQueries: [UInt8]

  package init(visibleKeys: [UInt8], isolatedQueries: [UInt8] = []) {
    self.visibleKeys = visibleKeys
    self.isolatedQueries = isolatedQueries
  }
}

extension AttentionMask {
  /// The mask of some keys of each sample, in order; nil where all of them may be seen.
  /// - Parameter ranges: of the `keyCount` keys of a sample.
  /// - Precondition: no query is isolated.
  package func keys(_ ranges: [Range<Int>], of keyCount: Int) -> AttentionMask? {
    precondition(isolatedQueries.isEmpty, "isolated queries see key 0, wherever it is")
    let visible = stride(from: 0, to: visibleKeys.count, by: keyCount).flatMap { sample in
      ranges.flatMap { visibleKeys[(sample + $0.lowerBound)..<(sample + $0.upperBound)] }
    }
    return visible.contains(0) ? AttentionMask(visibleKeys: visible) : nil
  }
}

/// Sizes of one attention: B samples, Lq queries and Lk keys each, N heads of width K.
package struct AttentionShape: Hashable, Sendable {
  package let sampleCount: Int
  package let queryCount: Int
  package let keyCount: Int
  package let headCount: Int
  package let headWidth: Int

  package init(sampleCount: Int, queryCount: Int, keyCount: Int, headCount: Int, headWidth: Int) {
    self.sampleCount = sampleCount
    self.queryCount = queryCount
    self.keyCount = keyCount
    self.headCount = headCount
    self.headWidth = headWidth
  }
}

/// Sizes of a normalization with modulation per group: G groups of L rows of width D.
///
/// A DiT block has one group per sample; an affine LayerNorm has one group in all.
package struct ModulationShape: Hashable, Sendable {
  package let groupCount: Int
  package let rowsPerGroup: Int
  package let width: Int

  package init(groupCount: Int, rowsPerGroup: Int, width: Int) {
    self.groupCount = groupCount
    self.rowsPerGroup = rowsPerGroup
    self.width = width
  }
}

/// Sizes of a per-head RMSNorm with rotation: B samples of L tokens, N heads of width K; the first
/// `rotatedCount` tokens of each sample are rotated by the tables, the rest are only normalized.
package struct HeadNormShape: Hashable, Sendable {
  package let sampleCount: Int
  package let tokenCount: Int
  package let headCount: Int
  package let headWidth: Int
  package let rotatedCount: Int
  /// Slices of the heads of which each has a gradient of the gain of its own, one after the other.
  package let sliceCount: Int

  package init(
    sampleCount: Int, tokenCount: Int, headCount: Int, headWidth: Int, rotatedCount: Int,
    sliceCount: Int = 1
  ) {
    self.sampleCount = sampleCount
    self.tokenCount = tokenCount
    self.headCount = headCount
    self.headWidth = headWidth
    self.rotatedCount = rotatedCount
    self.sliceCount = sliceCount
  }
}

package protocol KernelScalar: BinaryFloatingPoint, BitwiseCopyable, Sendable {
  // MARK: Products

  /// c = scale · a b, or c += scale · a b when `accumulating`. `c` is not transposed.
  static func multiply(
    _ a: Matrix<Self>, _ b: Matrix<Self>, scale: Self, accumulating: Bool,
    precision: ProductPrecision, choice: KernelChoice, into c: Matrix<Self>)

  /// c = Σ_t a_t b_t, plus bias in each row: one pass over c where the operands allow it.
  /// - Parameter packed: the b of the first terms, one above the other, packed ahead.
  static func multiply(
    sumOf terms: [(a: Matrix<Self>, b: Matrix<Self>)], packed: PackedOperand?,
    addingToRows bias: Buffer<Self>?, precision: ProductPrecision, choice: KernelChoice,
    into c: Matrix<Self>)

  /// c = scale · Σ_s Σ_t a_st b_st, plus bias in each row. The products of the slices s meet in the tree of
  /// Sources/MeshLayout/TreeOrder.swift, so those of half of the slices, or an eighth, are a subtree; each has the
  /// bits that it has by itself (`KernelChoice.sameForParts`).
  /// - Parameter packed: the b of all terms, one above the other, packed ahead.
  /// - Precondition: a power of two of slices with terms of equal sizes.
  static func multiply(
    slices: [[(a: Matrix<Self>, b: Matrix<Self>)]], packed: PackedOperand?, scale: Self,
    addingToRows bias: Buffer<Self>?, precision: ProductPrecision, into c: Matrix<Self>)

  /// A right operand packed ahead; nil where that would speed nothing up.
  static func packed(
    _ b: Matrix<Self>, precision: ProductPrecision, allocate: (_ count: Int) -> Buffer<UInt32>
  ) -> PackedOperand?

  /// x[r, :] += bias, for `rowCount` rows of `bias.count`.
  static func addBias(_ bias: Buffer<Self>, toRowsOf x: Buffer<Self>, rowCount: Int)

  /// sums += Σ_r x[r, :].
  static func addColumnSums(of x: Buffer<Self>, rowCount: Int, to sums: Buffer<Self>)

  // MARK: Normalization

  /// y = x̂ (scaleOffset + scale[g]) + shift[g] with x̂ = (x − mean) · inverseDeviation per row.
  ///
  /// `scale`, `shift`: G×D, or nil for none (then y = x̂ · scaleOffset). Saves mean and inverse
  /// deviation 1/√(var + epsilon) per row (G·L each). DiT modulation: scaleOffset 1; affine: 0, G = 1.
  static func modulatedLayerNorm(
    _ x: Buffer<Self>, scale: Buffer<Self>?, shift: Buffer<Self>?, scaleOffset: Self,
    epsilon: Self, shape: ModulationShape, into y: Buffer<Self>, mean: Buffer<Self>,
    inverseDeviation: Buffer<Self>)

  static func modulatedLayerNormBackward(
    outputGradient: Buffer<Self>, x: Buffer<Self>, scale: Buffer<Self>?, scaleOffset: Self,
    shape: ModulationShape, mean: Buffer<Self>, inverseDeviation: Buffer<Self>,
    inputGradient: GradientBuffer<Self>?, scaleGradient: Buffer<Self>?,
    shiftGradient: Buffer<Self>?)

  /// Per head: u = x · inverseRoot · gain with inverseRoot = 1/√(mean(x²) + epsilon); then for
  /// rotated tokens y[2i] = u[2i] cos − u[2i+1] sin, y[2i+1] = u[2i+1] cos + u[2i] sin.
  ///
  /// `x`, `y`: B×L×N×K. `gain`: K. `cosines`, `sines`: rotatedCount × K/2 (empty if none).
  /// `inverseRoot`: B·L·N, saved. A nil gain means a gain of one; normalizing can't be turned off.
  static func headNorm(
    _ x: Buffer<Self>, gain: Buffer<Self>?, cosines: Buffer<Self>, sines: Buffer<Self>,
    epsilon: Self, shape: HeadNormShape, into y: Buffer<Self>, inverseRoot: Buffer<Self>)

  /// - Parameter gainGradient: of every slice of the heads, sliceCount × K.
  static func headNormBackward(
    outputGradient: Buffer<Self>, x: Buffer<Self>, gain: Buffer<Self>?, cosines: Buffer<Self>,
    sines: Buffer<Self>, shape: HeadNormShape, inverseRoot: Buffer<Self>,
    inputGradient: GradientBuffer<Self>?, gainGradient: Buffer<Self>?)

  /// target[r] = R source[r], or target[r] += R source[r], for `rowCount` rows of `width` elements at
  /// the given strides. R rotates each pair of a head of K = 2·`cosines.count` elements by its angle:
  /// (a, b) → (a cos − b sin, b cos + a sin); `backwards` it is the transpose, by the negative angle.
  static func rotateRows(
    _ source: Buffer<Self>, stride sourceStride: Int, to target: Buffer<Self>,
    stride targetStride: Int, rowCount: Int, width: Int, cosines: Buffer<Self>,
    sines: Buffer<Self>, backwards: Bool, accumulating: Bool)

  // MARK: Attention

  /// softmax(q kᵀ / √K) v per head without an Lq×Lk matrix in memory.
  ///
  /// `query`, `output`: B×Lq×N×K; `key`, `value`: B×Lk×N×K. Saves log Σ exp of the scaled scores
  /// per query and head, B×N×Lq. - Source: FlashAttention-2 (2307.08691), algorithms 1 and 2.
  static func attention(
    query: Buffer<Self>, key: Buffer<Self>, value: Buffer<Self>, mask: AttentionMask?,
    shape: AttentionShape, precision: ProductPrecision, into output: Buffer<Self>,
    logSumExp: Buffer<Self>)

  static func attentionBackward(
    outputGradient: Buffer<Self>, query: Buffer<Self>, key: Buffer<Self>, value: Buffer<Self>,
    output: Buffer<Self>, logSumExp: Buffer<Self>, mask: AttentionMask?, shape: AttentionShape,
    precision: ProductPrecision, queryGradient: GradientBuffer<Self>,
    keyGradient: GradientBuffer<Self>, valueGradient: GradientBuffer<Self>)

  /// Attention over two sets of keys from those over each: with l = log(e^l₁ + e^l₂),
  /// o = e^(l₁ − l) o₁ + e^(l₂ − l) o₂. A set of which a query sees no key counts nothing.
  ///
  /// Outputs: B×Lq×N×K, log-sum-exps: B×N×Lq; the number of keys in `shape` is not read. The way back needs no inverse: `attentionBackward` over
  /// one set, given output and log-sum-exp of all, gives what that set contributes.
  /// - Source: Ring Attention (2310.01889) §3; FlashAttention-2 (2307.08691) §2.3.
  static func joinAttention(
    output otherOutput: Buffer<Self>, logSumExp otherLogSumExp: Buffer<Self>,
    shape: AttentionShape, to output: Buffer<Self>, logSumExp: Buffer<Self>)

  // MARK: Elementwise

  static func apply(_ activation: Activation, to x: Buffer<Self>, into y: Buffer<Self>)

  /// inputGradient += activation′(x) · outputGradient.
  static func applyBackward(
    _ activation: Activation, outputGradient: Buffer<Self>, x: Buffer<Self>,
    inputGradient: GradientBuffer<Self>)

  /// y = x + gate[g] · h per group.
  static func gatedResidual(
    _ x: Buffer<Self>, gate: Buffer<Self>, h: Buffer<Self>, shape: ModulationShape,
    into y: Buffer<Self>)

  /// hGradient += gate · dy; gateGradient[g] += Σ_rows dy · h. (The gradient of x is dy itself.)
  static func gatedResidualBackward(
    outputGradient: Buffer<Self>, gate: Buffer<Self>, h: Buffer<Self>, shape: ModulationShape,
    hGradient: GradientBuffer<Self>?, gateGradient: Buffer<Self>?)

  /// z = a x + b y.
  static func combine(
    _ a: Self, _ x: Buffer<Self>, _ b: Self, _ y: Buffer<Self>, into z: Buffer<Self>)

  /// y += a x.
  static func add(_ a: Self, _ x: Buffer<Self>, to y: Buffer<Self>)

  /// z = x · y.
  static func multiplyElements(_ x: Buffer<Self>, _ y: Buffer<Self>, into z: Buffer<Self>)

  /// z += x · y.
  static func addProduct(_ x: Buffer<Self>, _ y: Buffer<Self>, to z: Buffer<Self>)

  // MARK: Reductions, accumulated in Float64 in a fixed order

  static func sum(_ x: Buffer<Self>) -> Double
  static func sumOfMagnitudes(_ x: Buffer<Self>) -> Double
  static func dot(_ x: Buffer<Self>, _ y: Buffer<Self>) -> Double

  // MARK: Float64

  static func doubles(of x: Buffer<Self>) -> [Double]

  /// y = the elements, exactly.
  static func copy(_ elements: [Float], into y: Buffer<Self>)

  /// y = the elements rounded to this type.
  static func round(_ elements: [Double], into y: Buffer<Self>)

  // MARK: Moving

  /// target[r, 0..<width] = source[r, 0..<width] for `rowCount` rows at the given strides.
  static func copyRows(
    _ source: Buffer<Self>, stride sourceStride: Int, to target: Buffer<Self>,
    stride targetStride: Int, rowCount: Int, width: Int)

  /// The same, adding.
  static func addRows(
    _ source: Buffer<Self>, stride sourceStride: Int, to target: Buffer<Self>,
    stride targetStride: Int, rowCount: Int, width: Int)

  /// y[i at axes order] = x: dimension d of y is dimension `axes[d]` of x (as numpy.transpose).
  static func permute(
    _ x: Buffer<Self>, shape: [Int], axes: [Int], into y: Buffer<Self>)
}

extension KernelScalar {
  /// `multiply` by the fastest kernel.
  package static func multiply(
    sumOf terms: [(a: Matrix<Self>, b: Matrix<Self>)], packed: PackedOperand? = nil,
    addingToRows bias: Buffer<Self>?, precision: ProductPrecision, into c: Matrix<Self>
  ) {
    multiply(
      sumOf: terms, packed: packed, addingToRows: bias, precision: precision, choice: .fastest,
      into: c)
  }

  /// `multiply` by the fastest kernel.
  package static func multiply(
    _ a: Matrix<Self>, _ b: Matrix<Self>, scale: Self, accumulating: Bool,
    precision: ProductPrecision, into c: Matrix<Self>
  ) {
    multiply(
      a, b, scale: scale, accumulating: accumulating, precision: precision, choice: .fastest,
      into: c)
  }

  /// `multiply` of operands as they are.
  package static func multiply(
    _ a: Matrix<Self>, _ b: Matrix<Self>, scale: Self, accumulating: Bool, into c: Matrix<Self>
  ) {
    multiply(a, b, scale: scale, accumulating: accumulating, precision: .float32, into: c)
  }
}
