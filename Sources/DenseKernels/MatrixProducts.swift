// Matrix products by OpenBLAS. Sizes are checked here, at 64 bits, against what its C interface takes.

import COpenBLAS

extension Float {
  package static func multiply(
    _ a: Matrix<Self>, _ b: Matrix<Self>, scale: Self, accumulating: Bool, into c: Matrix<Self>
  ) {
    let (rows, inner, columns) = productSizes(a, b, c)
    guard rows > 0 && columns > 0 else { return }
    unsafe cblas_sgemm(
      CblasRowMajor, a.isTransposed ? CblasTrans : CblasNoTrans,
      b.isTransposed ? CblasTrans : CblasNoTrans, blasInteger(rows), blasInteger(columns),
      blasInteger(inner), scale, a.buffer.base, a.leadingSize, b.buffer.base, b.leadingSize,
      accumulating ? 1 : 0, c.buffer.base, c.leadingSize)
  }
}

extension Double {
  package static func multiply(
    _ a: Matrix<Self>, _ b: Matrix<Self>, scale: Self, accumulating: Bool, into c: Matrix<Self>
  ) {
    let (rows, inner, columns) = productSizes(a, b, c)
    guard rows > 0 && columns > 0 else { return }
    unsafe cblas_dgemm(
      CblasRowMajor, a.isTransposed ? CblasTrans : CblasNoTrans,
      b.isTransposed ? CblasTrans : CblasNoTrans, blasInteger(rows), blasInteger(columns),
      blasInteger(inner), scale, a.buffer.base, a.leadingSize, b.buffer.base, b.leadingSize,
      accumulating ? 1 : 0, c.buffer.base, c.leadingSize)
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
