// Where a parameter set that is not whole in memory has its elements.

package import DenseKernels

/// Brings units of a flat vector into memory. Neither call can fail for the caller: whoever implements
/// them keeps a failure for the next agreement of the ranks.
package protocol UnitSource<Scalar>: AnyObject {
  associatedtype Scalar: KernelScalar

  /// Fills `elements` with those of a unit.
  func load(_ unit: Int, into elements: Buffer<Scalar>)

  /// Keeps what has become of a unit.
  func keep(_ unit: Int, _ elements: Buffer<Scalar>)
}
