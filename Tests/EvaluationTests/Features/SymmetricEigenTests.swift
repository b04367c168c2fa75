import TestSupport
import Testing

@testable import Evaluation

@Suite struct SymmetricEigenTests {
  @Test(arguments: [1, 2, 3, 7, 20])
  func `vectors are orthonormal and rebuild the matrix`(size: Int) {
    var matrix = [Double](repeating: 0, count: size * size)
    for row in 0..<size {
      for column in 0...row {
        let value = Double((row * 31 + column * 17 + row * column) % 23) / 11 - 1
        matrix[row * size + column] = value
        matrix[column * size + row] = value
      }
    }
    let eigen = SymmetricEigen(matrix, size: size)
    var rebuilt = [Double](repeating: 0, count: size * size)
    var gram = rebuilt
    var identity = rebuilt
    for row in 0..<size {
      identity[row * size + row] = 1
      for column in 0..<size {
        for index in 0..<size {
          rebuilt[row * size + column] +=
            eigen.values[index] * eigen.vectors[index * size + row]
            * eigen.vectors[index * size + column]
          gram[row * size + column] +=
            eigen.vectors[row * size + index] * eigen.vectors[column * size + index]
        }
      }
    }
    // Some hundred roundings of 1e-16 on values of at most 20.
    #expect(difference(rebuilt, matrix, absolute: 1e-12) == nil)
    #expect(difference(gram, identity, absolute: 1e-13) == nil)
  }

  @Test func `small eigenvalues of a positive matrix are exact to their own size`() {
    // [[1, c], [c, c² + 1e-12]] has determinant 1e-12 and trace about 1 + c².
    let eigen = SymmetricEigen([1, 0.5, 0.5, 0.25 + 1e-12], size: 2)
    let smallest = eigen.values.min() ?? 0
    // 0.25 + 1e-12 itself is rounded to 2^-54.
    #expect(abs(smallest - 0.8e-12) < 1e-16)
  }

  @Test func `the root of a positive matrix squares to it`() {
    let matrix: [Double] = [4, 1, -0.5, 1, 3, 0.25, -0.5, 0.25, 2]
    let root = SymmetricEigen(matrix, size: 3).squareRoot()
    var square = [Double](repeating: 0, count: 9)
    for row in 0..<3 {
      for column in 0..<3 {
        for inner in 0..<3 {
          square[row * 3 + column] += root[row * 3 + inner] * root[inner * 3 + column]
        }
      }
    }
    #expect(difference(square, matrix, absolute: 1e-14) == nil)
  }
}
