// A shaped, contiguous, row-major array in arena storage.

import Basics
package import DenseKernels

/// A reference to shaped elements; copies of the handle see the same memory.
package struct Tensor<Scalar: KernelScalar> {
  package let buffer: Buffer<Scalar>
  package let shape: [Int]

  /// - Precondition: the buffer holds exactly the product of `shape`.
  package init(_ buffer: Buffer<Scalar>, shape: [Int]) {
    require(
      shape.allSatisfy { $0 >= 0 } && shape.reduce(1, *) == buffer.count,
      "shape \(shape) does not have the \(buffer.count) elements of its buffer")
    self.buffer = buffer
    self.shape = shape
  }

  /// An uninitialized tensor, or zeros when `zeroed`.
  package init(shape: [Int], in arena: Arena, booking: Booking, zeroed: Bool = false) {
    let buffer = arena.allocate(
      Scalar.self, count: shape.reduce(1, *), booking: booking, zeroed: zeroed)
    self.init(buffer, shape: shape)
  }

  package init(_ elements: [Scalar], shape: [Int], in arena: Arena, booking: Booking) {
    self.init(shape: shape, in: arena, booking: booking)
    buffer.copy(from: elements)
  }

  package var count: Int { buffer.count }
  package var array: [Scalar] { buffer.array }

  /// The same elements under another shape.
  package func reshaped(_ shape: [Int]) -> Tensor { Tensor(buffer, shape: shape) }

  /// Rows `range` of the first dimension, without a copy.
  package func rows(_ range: Range<Int>) -> Tensor {
    require(
      !shape.isEmpty && range.upperBound <= shape[0], "rows \(range) of a tensor \(shape)")
    let rowCount = shape.dropFirst().reduce(1, *)
    return Tensor(
      buffer[(range.lowerBound * rowCount)..<(range.upperBound * rowCount)],
      shape: [range.count] + shape.dropFirst())
  }

  package func copied(in arena: Arena, booking: Booking) -> Tensor {
    let copy = Tensor(shape: shape, in: arena, booking: booking)
    copy.buffer.copy(from: buffer)
    return copy
  }
}

extension Tensor: CustomStringConvertible {
  package var description: String { "Tensor<\(Scalar.self)>\(shape)" }
}
