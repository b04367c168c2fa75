// A second tier of memory for what a recomputed block keeps: its inputs.

package import DenseKernels
package import Tensors

/// Elements that are out of memory until the way back asks for them; letting go of it frees their place.
package protocol StoredActivation<Scalar>: AnyObject {
  associatedtype Scalar: KernelScalar

  /// The elements again. It is asked for once.
  func load() -> Buffer<Scalar>
}

/// Keeps activations outside of memory. Neither call can fail for the caller: whoever implements them keeps a
/// failure for the next agreement of the ranks.
package protocol ActivationStore<Scalar>: AnyObject {
  associatedtype Scalar: KernelScalar

  /// Takes elements that nobody writes any more; nil where they stay in memory.
  /// - Parameter booking: of the memory that they come back to.
  func store(_ buffer: Buffer<Scalar>, booking: Booking) -> (any StoredActivation<Scalar>)?
}

/// An input that a recomputed block keeps.
enum KeptInput<Scalar: KernelScalar> {
  case inMemory(Tensor<Scalar>)
  case stored(any StoredActivation<Scalar>, shape: [Int])

  var tensor: Tensor<Scalar> {
    switch self {
    case .inMemory(let tensor): tensor
    case .stored(let elements, let shape): Tensor(elements.load(), shape: shape)
    }
  }
}
