// Where a parameter set that is not whole in memory has its elements.

import Basics
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

  package var isPart: Bool { self == .part || self == .partOfStage }
  package var isOfStage: Bool { self == .stage || self == .partOfStage }

  /// Of what lies outside of blocks, which nobody cuts, in a pass whose blocks have this extent.
  package var outsideOfBlocks: UnitExtent { isOfStage ? .stage : .whole }
}

/// Which way a pass goes through the blocks.
package enum PassDirection {
  case forward
  /// The way back, with what is computed again there.
  case back
}

/// Brings units of a flat vector into memory. No call can fail for the caller: whoever implements
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

  /// Whether units can be loaded while others are computed with.
  func loadsAhead(_ extent: UnitExtent) -> Bool
  /// Begins to fill `elements` with what a pass will compute with.
  /// - Precondition: `loadsAhead`.
  /// - Returns: waits for them; called once, before anybody reads or frees them.
  func startLoading(
    _ unit: Int, _ extent: UnitExtent, into elements: Buffer<Scalar>
  ) -> () -> Void
}

extension UnitSource {
  package func isInStage(_ unit: Int) -> Bool { true }
  package func loadInStage(_ unit: Int, into elements: Buffer<Scalar>) {
    load(unit, into: elements)
  }
  package func loadsAhead(_ extent: UnitExtent) -> Bool { false }
  package func startLoading(
    _ unit: Int, _ extent: UnitExtent, into elements: Buffer<Scalar>
  ) -> () -> Void { trap("a source that loads nothing ahead") }
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
