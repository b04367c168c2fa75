// Eigenvalues and eigenvectors of a symmetric matrix, by LAPACK's divide and conquer (dsyevd).

import COpenBLAS

/// What the world can do to a kernel.
package struct DenseKernelsError: Error, CustomStringConvertible {
  package enum Code: Hashable, Sendable {
    /// LAPACK gave up on a matrix.
    case notConverged
  }

  package let code: Code
  package let message: String
  package let cause: (any Error)?

  package var description: String { message }
}

/// matrix = Σᵢ valuesᵢ vᵢ vᵢᵀ, values ascending.
///
/// - Shapes: `matrix` order × order, row-major, of which one triangle is read; `vectors`
///   order × order, where row i is the unit vector vᵢ of `values[i]`.
/// - Throws: `notConverged`, also when the matrix has elements that are not finite.
package func symmetricEigen(_ matrix: [Double], order: Int) throws(DenseKernelsError) -> (
  values: [Double], vectors: [Double]
) {
  precondition(
    order > 0 && matrix.count == order * order, "\(matrix.count) elements, order \(order)")
  guard matrix.allSatisfy(\.isFinite) else {
    throw DenseKernelsError(
      code: .notConverged, message: "a matrix of order \(order) has elements that are not finite",
      cause: nil)
  }
  // Column-major LAPACK leaves vector i in column i, which is row i to us.
  var vectors = matrix
  var values = [Double](repeating: 0, count: order)
  // Workspace sizes of netlib's dsyevd.f for job V.
  var work = [Double](repeating: 0, count: 1 + 6 * order + 2 * order * order)
  var integerWork = [Int32](repeating: 0, count: 3 + 5 * order)
  var (size, workCount, integerCount) = (
    blasInteger(order), blasInteger(work.count), blasInteger(integerWork.count)
  )
  var (leading, status) = (size, Int32(0))
  unsafe dsyevd_(
    "V", "U", &size, &vectors, &leading, &values, &work, &workCount, &integerWork, &integerCount,
    &status, 1, 1)
  precondition(status >= 0, "dsyevd: argument \(-status) is wrong")
  guard status == 0 else {
    throw DenseKernelsError(
      code: .notConverged,
      message: "eigenvalues of a matrix of order \(order) did not converge (dsyevd \(status))",
      cause: nil)
  }
  return (values, vectors)
}
