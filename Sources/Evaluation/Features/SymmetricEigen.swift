// Eigenvalues and eigenvectors of a symmetric matrix by cyclic Jacobi rotations, in Float64.
//
// For the 128 features of this module it takes tens of milliseconds; it finds small eigenvalues of
// positive matrices to full relative accuracy, and its bits depend on no library or CPU kernel, so
// that a reported distance can be repeated elsewhere.
// - Source: Golub, Van Loan, "Matrix Computations", section 8.5; rotation formulas of Rutishauser.

struct SymmetricEigen {
  let size: Int
  /// Eigenvalues, in no particular order.
  private(set) var values: [Double]
  /// size × size; row i is the eigenvector of value i.
  private(set) var vectors: [Double]

  /// - Precondition: `matrix` is size × size; only its symmetric part is looked at.
  init(_ matrix: [Double], size: Int) {
    precondition(matrix.count == size * size, "\(matrix.count) elements for \(size)×\(size)")
    self.size = size
    var a = matrix
    vectors = [Double](repeating: 0, count: size * size)
    for index in 0..<size { vectors[index * size + index] = 1 }
    // Convergence is quadratic: six to ten sweeps. The limit only stops on NaN.
    for _ in 0..<60 {
      var rotated = false
      for p in 0..<size {
        for q in (p + 1)..<max(size, p + 1) {
          let coupling = a[p * size + q]
          let bound = 1e-17 * (abs(a[p * size + p]) * abs(a[q * size + q])).squareRoot()
          guard abs(coupling) > bound, abs(coupling) > .leastNormalMagnitude else { continue }
          rotated = true
          let theta = (a[q * size + q] - a[p * size + p]) / (2 * coupling)
          let sign: Double = theta < 0 ? -1 : 1
          let tangent = sign / (abs(theta) + (theta * theta + 1).squareRoot())
          let cosine = 1 / (tangent * tangent + 1).squareRoot()
          Self.rotate(&a, &vectors, p, q, cosine: cosine, sine: tangent * cosine, size: size)
          a[p * size + q] = 0
          a[q * size + p] = 0
        }
      }
      if !rotated { break }
    }
    values = (0..<size).map { a[$0 * size + $0] }
  }

  /// V diag(√max(λ, 0)) Vᵀ, size × size.
  func squareRoot() -> [Double] {
    var result = [Double](repeating: 0, count: size * size)
    for (index, value) in values.enumerated() {
      let root = max(value, 0).squareRoot()
      for row in 0..<size {
        let factor = root * vectors[index * size + row]
        for column in 0..<size {
          result[row * size + column] += factor * vectors[index * size + column]
        }
      }
    }
    return result
  }

  /// a ← J a Jᵀ, vectors ← J vectors with the rotation J in the plane (p, q).
  private static func rotate(
    _ a: inout [Double], _ vectors: inout [Double], _ p: Int, _ q: Int, cosine: Double,
    sine: Double, size: Int
  ) {
    for k in 0..<size {
      let (x, y) = (a[p * size + k], a[q * size + k])
      a[p * size + k] = cosine * x - sine * y
      a[q * size + k] = sine * x + cosine * y
      let (u, v) = (vectors[p * size + k], vectors[q * size + k])
      vectors[p * size + k] = cosine * u - sine * v
      vectors[q * size + k] = sine * u + cosine * v
    }
    for k in 0..<size {
      let (x, y) = (a[k * size + p], a[k * size + q])
      a[k * size + p] = cosine * x - sine * y
      a[k * size + q] = sine * x + cosine * y
    }
  }
}
