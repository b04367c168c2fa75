// One parameter as a layer sees it.

import Basics
package import DenseKernels
package import Tensors

/// One tensor that a layer reads; trainable while it has a gradient.
package final class Parameter<Scalar: KernelScalar> {
  package let name: String
  package let shape: [Int]
  /// Whether its elements stay where they are; if not, nothing may keep them beyond its block.
  let isKept: Bool
  var elements: Tensor<Scalar>?
  var accumulatedGradient: Gradient<Scalar>?
  /// Where a packed copy of it is kept; nil: nowhere.
  var packing: WeightPacking<Scalar>?

  init(_ entry: FlatLayout.Entry, in flat: Buffer<Scalar>?) {
    name = entry.name
    shape = entry.shape
    isKept = flat != nil
    elements = flat.map { Tensor($0[entry.range], shape: entry.shape) }
  }

  package var count: Int { shape.reduce(1, *) }

  /// Its elements.
  /// - Precondition: they are in memory: all of its set is, or its block was entered.
  package var value: Tensor<Scalar> {
    guard let elements else { trap("\(name) is not in memory: its block was not entered") }
    return elements
  }

  /// Its transpose as the right operand of products, if that is kept.
  func packed(_ precision: ProductPrecision) -> PackedOperand? {
    packing?.operand(value, precision: precision)
  }

  /// Where its gradient is accumulated; nil while it is frozen.
  package var gradient: Tensor<Scalar>? { accumulatedGradient?.memory }
}
