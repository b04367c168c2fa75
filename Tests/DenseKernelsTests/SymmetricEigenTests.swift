import DenseKernels
import TestSupport
import Testing

struct SymmetricEigenTests {
  @Test(arguments: [1, 2, 3, 17, 64])
  func `eigenvectors are orthonormal rows that rebuild the matrix`(order: Int) throws {
    let seed: Buffer<Double> = normals(order * order, 1)
    var matrix = [Double](repeating: 0, count: order * order)
    for i in 0..<order {
      for j in 0..<order { matrix[i * order + j] = seed[i * order + j] + seed[j * order + i] }
    }
    let (values, vectors) = try symmetricEigen(matrix, order: order)
    #expect(values == values.sorted())
    var (rebuilt, gram) = (matrix.map { _ in 0.0 }, matrix.map { _ in 0.0 })
    var identity = gram
    for i in 0..<order {
      identity[i * order + i] = 1
      for j in 0..<order {
        for k in 0..<order {
          rebuilt[i * order + j] += values[k] * vectors[k * order + i] * vectors[k * order + j]
          gram[i * order + j] += vectors[i * order + k] * vectors[j * order + k]
        }
      }
    }
    // Backward stable: n ε times the norm, which is below 4 √n.
    let bound = Double(order) * Double.ulpOfOne * 4 * Double(order).squareRoot() * 8
    #expect(difference(rebuilt, matrix, absolute: bound) == nil)
    #expect(difference(gram, identity, absolute: bound) == nil)
  }

  @Test func `a diagonal matrix gives its elements in order`() throws {
    let (values, vectors) = try symmetricEigen([3, 0, 0, 0, 1, 0, 0, 0, 2], order: 3)
    #expect(values == [1, 2, 3])
    let magnitudes = vectors.map { abs($0) }
    #expect(magnitudes == [0, 1, 0, 0, 0, 1, 1, 0, 0])
  }

  @Test func `a matrix that is not finite is refused with a message`() {
    #expect(throws: DenseKernelsError.self) { try symmetricEigen([1, .nan, .nan, 1], order: 2) }
  }
}
