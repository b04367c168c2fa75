// Sums and maxima over ranks. Never MPI's own reductions: those change their order with size and
// rank count. Meant for scalars and short vectors (losses, norms, flags); gradients go by Exchange.

import MeshLayout

extension Transport {
  /// The elementwise sum over ranks in the fixed tree of rank order, equal bits on every rank.
  /// - Precondition: the same count on every rank.
  /// - Collective: over the group.
  package func allReduce(sum values: [Double]) throws -> [Double] {
    try reduceInTree(values, combine: +)
  }

  package func allReduce(sum value: Double) throws -> Double { try allReduce(sum: [value])[0] }

  /// The elementwise maximum over ranks.
  /// - Precondition: the same count on every rank.
  /// - Collective: over the group.
  package func allReduce(max values: [Int]) throws -> [Int] {
    let operands = try allGather([UInt8](values)).map(\.integers)
    return try combined(operands, combine: Swift.max)
  }

  package func allReduce(max value: Int) throws -> Int { try allReduce(max: [value])[0] }

  /// The elementwise maximum over ranks; NaN on any rank gives NaN.
  /// - Collective: over the group.
  package func allReduce(max values: [Double]) throws -> [Double] {
    try reduceInTree(values) { $0.isNaN ? $0 : $1.isNaN ? $1 : Swift.max($0, $1) }
  }

  private func reduceInTree(
    _ values: [Double], combine: (Double, Double) -> Double
  ) throws -> [Double] {
    try combined(allGather([UInt8](values)).map(\.doubles), combine: combine)
  }

  private func combined<Number>(
    _ operands: [[Number]], combine: (Number, Number) -> Number
  ) throws -> [Number] {
    for (peer, operand) in operands.enumerated() where operand.count != operands[rank].count {
      throw PeerError(
        code: .malformedPayload, rank: peer,
        message: "reduces \(operand.count) numbers, rank \(rank) \(operands[rank].count)")
    }
    return treeReduce(
      count: size, operand: { operands[$0] },
      combine: { left, right in zip(left, right).map(combine) })
  }
}
