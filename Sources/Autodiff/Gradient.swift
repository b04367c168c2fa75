// The gradient of one value while its contributions come in.
//
// Nothing is cleared in advance: the first contribution overwrites, or hands its own memory over; the
// following ones add. Contributions come in reverse order of recording, so the sum is the same
// wherever a microbatch is computed.

import Basics
package import DenseKernels
package import Tensors

/// A sum of contributions, in memory that comes with the first or that the caller gave.
final class Gradient<Scalar: KernelScalar> {
  private let shape: [Int]
  private var tensor: Tensor<Scalar>?
  private var hasContribution: Bool
  /// Whether its memory is lent for a while: then it never takes any other.
  private let isLent: Bool
  /// Whether nobody wants it, although what it is of takes part in the record as if somebody did.
  let isDropped: Bool

  /// Of a value in the middle: memory comes with the first contribution.
  /// - Parameter isDropped: nothing ever contributes.
  init(shape: [Int], isDropped: Bool = false) {
    self.shape = shape
    tensor = nil
    hasContribution = false
    isLent = false
    self.isDropped = isDropped
  }

  /// Of a parameter whose block has memory for gradients on its way back only.
  init(lentTo shape: [Int]) {
    self.shape = shape
    tensor = nil
    hasContribution = false
    isLent = true
    isDropped = false
  }

  /// In the caller's memory.
  /// - Parameter accumulates: false: its content is unspecified until something contributes.
  init(in tensor: Tensor<Scalar>, accumulates: Bool) {
    shape = tensor.shape
    self.tensor = tensor
    hasContribution = accumulates
    isLent = false
    isDropped = false
  }

  /// Memory with unspecified content, until `takeBack`.
  func lend(_ memory: Tensor<Scalar>) {
    tensor = memory
    hasContribution = false
  }

  func takeBack() {
    tensor = nil
    hasContribution = false
  }

  /// What has come together; nil if nothing has.
  var sum: Tensor<Scalar>? { hasContribution ? tensor : nil }

  /// The memory, whatever is in it.
  var memory: Tensor<Scalar>? { tensor }

  /// The sum, which is then gone from here.
  func take() -> Tensor<Scalar>? {
    defer { tensor = nil }
    return sum
  }

  /// Where the next contribution goes; the caller writes it at once.
  func place(arena: Arena, role: MemoryRole) -> GradientBuffer<Scalar> {
    requireLoan()
    let tensor =
      self.tensor
      ?? Tensor(shape: shape, in: arena, booking: Booking(role, .activations))
    self.tensor = tensor
    defer { hasContribution = true }
    return GradientBuffer(tensor.buffer, accumulates: hasContribution)
  }

  func add(_ contribution: Tensor<Scalar>, arena: Arena, role: MemoryRole) {
    let place = place(arena: arena, role: role)
    if place.accumulates {
      Scalar.add(1, contribution.buffer, to: place.buffer)
    } else {
      place.buffer.copy(from: contribution.buffer)
    }
  }

  /// The same, taking the memory of `contribution` where there is none yet.
  /// - Returns: whether it was taken; then nobody else may write to it.
  func adopt(_ contribution: Tensor<Scalar>, arena: Arena, role: MemoryRole) -> Bool {
    requireLoan()
    guard tensor == nil else {
      add(contribution, arena: arena, role: role)
      return false
    }
    tensor = contribution.reshaped(shape)
    hasContribution = true
    return true
  }

  private func requireLoan() {
    require(!isLent || tensor != nil, "a gradient for a block that is not on its way back")
  }

  /// Memory that nothing was written to becomes zero.
  func clearIfUntouched() {
    guard !hasContribution, let tensor else { return }
    tensor.buffer.clear()
    hasContribution = true
  }
}

/// The gradients of an operation's inputs, for its way back.
package struct InputGradients<Scalar: KernelScalar> {
  fileprivate let gradients: [Gradient<Scalar>?]
  fileprivate let arena: Arena
  fileprivate let role: MemoryRole

  init(gradients: [Gradient<Scalar>?], arena: Arena, role: MemoryRole) {
    self.gradients = gradients.map { $0?.isDropped == true ? nil : $0 }
    self.arena = arena
    self.role = role
  }

  package func isWanted(_ index: Int) -> Bool { gradients[index] != nil }

  /// Where the contribution to input `index` goes, nil if it is not wanted. It must be written before
  /// the next is asked for, as two inputs may be the same value.
  package func place(of index: Int) -> GradientBuffer<Scalar>? {
    gradients[index]?.place(arena: arena, role: role)
  }

  /// The same for a contribution that can only be added; cleared if it is the first.
  package func addend(of index: Int) -> Buffer<Scalar>? { place(of: index)?.addend }

  /// Hands the output's gradient on unchanged to one or several inputs. It must not be read afterwards.
  package func pass(_ outputGradient: Tensor<Scalar>, to indices: [Int]) {
    var isFree = true
    for index in indices {
      guard let gradient = gradients[index] else { continue }
      if isFree {
        isFree = !gradient.adopt(outputGradient, arena: arena, role: role)
      } else {
        gradient.add(outputGradient, arena: arena, role: role)
      }
    }
  }
}
