// Passing elements to and from Float64 arrays, where losses and x₀ conversions are computed
// (contract 4.3).

import DenseKernels

extension Tensor {
  /// All elements in Float64.
  package var doubles: [Double] { Scalar.doubles(of: buffer) }

  /// A tensor of the elements rounded to the scalar type.
  package init(rounding elements: [Double], shape: [Int], in arena: Arena, booking: Booking) {
    self.init(shape: shape, in: arena, booking: booking)
    Scalar.round(elements, into: buffer)
  }
}
