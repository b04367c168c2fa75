// Passing Float to and from Float64, sums in Float64, bias rows and column sums; the loops are in CKernels.

import CKernels

extension Float {
  package static func doubles(of x: Buffer<Self>) -> [Double] {
    unsafe UnsafeBufferPointer(start: x.base, count: x.count).map { Double($0) }
  }

  package static func copy(_ elements: [Float], into y: Buffer<Self>) { y.copy(from: elements) }

  package static func round(_ elements: [Double], into y: Buffer<Self>) {
    requireCount(elements.count, y.count, "elements")
    let target = unsafe y.base
    for (i, element) in elements.enumerated() { unsafe target[i] = Float(element) }
  }

  package static func sum(_ x: Buffer<Self>) -> Double { unsafe w2svd_sum(x.base, x.count) }

  package static func sumOfMagnitudes(_ x: Buffer<Self>) -> Double {
    unsafe w2svd_sum_of_magnitudes(x.base, x.count)
  }

  package static func dot(_ x: Buffer<Self>, _ y: Buffer<Self>) -> Double {
    requireCount(x.count, y.count, "x")
    return unsafe w2svd_dot(x.base, y.base, x.count)
  }

  package static func addBias(_ bias: Buffer<Self>, toRowsOf x: Buffer<Self>, rowCount: Int) {
    requireCount(x.count, rowCount * bias.count, "x")
    KernelThreads.splitRows(groups: 1, rows: rowCount, width: bias.count) { _, rows in
      unsafe w2svd_add_bias(
        bias.base, x.base + rows.lowerBound * bias.count, rows.count, bias.count)
    }
  }

  package static func addColumnSums(of x: Buffer<Self>, rowCount: Int, to sums: Buffer<Self>) {
    requireCount(x.count, rowCount * sums.count, "x")
    KernelThreads.splitColumns(sums.count, rowCount: rowCount) { columns in
      let first = columns.lowerBound
      unsafe w2svd_add_column_sums(
        x.base + first, sums.count, sums.base + first, rowCount, columns.count)
    }
  }
}
