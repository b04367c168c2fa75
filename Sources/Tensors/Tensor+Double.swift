// Passing elements to and from Float64 arrays, where losses and x₀ conversions are computed
// (contract 4.3). The casts to concrete array types cost nothing and let the loops be specialized.

import DenseKernels

extension Tensor {
  /// All elements in Float64.
  package var doubles: [Double] {
    let elements = array
    if let floats = elements as? [Float] { return floats.map { Double($0) } }
    if let doubles = elements as? [Double] { return doubles }
    return elements.map { Double($0) }
  }

  /// A tensor of the elements rounded to the scalar type.
  package init(rounding elements: [Double], shape: [Int], in arena: Arena, booking: Booking) {
    let rounded: [Scalar]
    if Scalar.self == Float.self, let floats = elements.map({ Float($0) }) as? [Scalar] {
      rounded = floats
    } else if let same = elements as? [Scalar] {
      rounded = same
    } else {
      rounded = elements.map { Scalar($0) }
    }
    self.init(rounded, shape: shape, in: arena, booking: booking)
  }
}
