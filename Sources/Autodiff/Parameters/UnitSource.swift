// Where a parameter set that is not whole in memory has its elements.

package import DenseKernels

/// How much of a network a pass has in memory.
package enum UnitExtent: Hashable, Sendable {
  /// Every unit, all of it.
  case whole
  /// Every unit, this rank's part of it (tensor parallelism).
  case part
  /// The units of this rank's pipeline stage, all of each.
  case stage
  /// The units of this rank's pipeline stage, this rank's part of each.
  case partOfStage

  var isPart: Bool { self == .part || self == .partOfStage }
  var isOfStage: Bool { self == .stage || self == .partOfStage }

  /// Of what lies outside of blocks, which nobody cuts, in a pass whose blocks have this extent.
  package var outsideOfBlocks: UnitExtent { isOfStage ? .stage : .whole }
}

/// Brings units of a flat vector into memory. Neither call can fail for the caller: whoever implements
/// them keeps a failure for the next agreement of the ranks.
package protocol UnitSource<Scalar>: AnyObject {
  associatedtype Scalar: KernelScalar

  /// Fills `elements` with those of a unit.
  func load(_ unit: Int, into elements: Buffer<Scalar>)
  /// Whether this rank's stage runs a unit; without stages it runs all.
  func isInStage(_ unit: Int) -> Bool
  /// Fills `elements` with those of a unit of this rank's stage.
  func loadInStage(_ unit: Int, into elements: Buffer<Scalar>)

  /// Keeps what has become of a unit.
  func keep(_ unit: Int, _ elements: Buffer<Scalar>)

  /// What this rank has of a unit where a pass computes with parts of parameters.
  func part(of unit: Int) -> UnitPart
  /// Fills `elements` with this part of a unit, of its stage where there are stages.
  func loadPart(of unit: Int, into elements: Buffer<Scalar>)
}

extension UnitSource {
  package func isInStage(_ unit: Int) -> Bool { true }
  package func loadInStage(_ unit: Int, into elements: Buffer<Scalar>) {
    load(unit, into: elements)
  }
}

/// Where the parameters of a unit lie in memory that holds a part of each.
package struct UnitPart: Sendable {
  /// Elements in memory, padding included.
  package let count: Int
  /// By entry of the unit.
  package let entries: [(range: Range<Int>, shape: [Int])]

  package init(count: Int, entries: [(range: Range<Int>, shape: [Int])]) {
    self.count = count
    self.entries = entries
  }
}
