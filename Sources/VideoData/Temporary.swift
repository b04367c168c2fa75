import DenseKernels
import Foundation
func symmetricEigen(_ m: [Double], order n: Int) throws -> (values: [Double], vectors: [Double]) {
  var a = m
  var v = [Double](repeating: 0, count: n * n)
  for i in 0..<n { v[i * n + i] = 1 }
  for _ in 0..<12 {
    for p in 0..<n - 1 {
      for q in p + 1..<n where abs(a[p * n + q]) > 1e-14 {
        let theta = (a[q * n + q] - a[p * n + p]) / (2 * a[p * n + q])
        let t = (theta >= 0 ? 1.0 : -1.0) / (abs(theta) + (theta * theta + 1).squareRoot())
        let c = 1 / (t * t + 1).squareRoot()
        let s = t * c
        for k in 0..<n {
          let (x, y) = (a[k * n + p], a[k * n + q])
          a[k * n + p] = c * x - s * y
          a[k * n + q] = s * x + c * y
        }
        for k in 0..<n {
          let (x, y) = (a[p * n + k], a[q * n + k])
          a[p * n + k] = c * x - s * y
          a[q * n + k] = s * x + c * y
        }
        for k in 0..<n {
          let (x, y) = (v[k * n + p], v[k * n + q])
          v[k * n + p] = c * x - s * y
          v[k * n + q] = s * x + c * y
        }
      }
    }
  }
  let order = (0..<n).sorted { a[$0 * n + $0] < a[$1 * n + $1] }
  var sorted = v
  for i in 0..<n { for (j, o) in order.enumerated() { sorted[i * n + j] = v[i * n + o] } }
  return (order.map { a[$0 * n + $0] }, sorted)
}
