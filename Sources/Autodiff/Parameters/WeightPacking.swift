// A weight as products read it, kept from its first use until its elements change.
//
// A product packs its right operand each time. Where few tokens meet a weight at a time that is a tenth to a
// fifth of x Wᵀ, the same for every microbatch and for every pass of a frozen network. On the way back
// W is read as it lies, and packing it costs nothing that shows.

import DenseKernels
import Tensors

/// The packed copy of one parameter.
final class WeightPacking<Scalar: KernelScalar> {
  private let arena: Arena
  private let booking: Booking
  private var operand: PackedOperand?

  init(arena: Arena, role: MemoryRole) {
    self.arena = arena
    booking = Booking(role, .workspace)
  }

  /// Wᵀ packed, now if it is not there.
  /// - Shapes: weight [D, …] → K × D.
  func operand(_ weight: Tensor<Scalar>, precision: ProductPrecision) -> PackedOperand? {
    if let operand, operand.precision == precision { return operand }
    let rows = weight.shape[0]
    operand = Scalar.packed(
      Matrix(weight.buffer, rows: rows, columns: weight.count / rows).transposed,
      precision: precision
    ) { arena.allocate(UInt32.self, count: $0, booking: booking) }
    return operand
  }

  /// Lets go of what is the parameter no longer.
  func drop() { operand = nil }
}
