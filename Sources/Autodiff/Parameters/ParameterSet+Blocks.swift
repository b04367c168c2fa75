// Blocks that come and go: the elements of a set that is not whole, and gradients that are handed over
// as soon as a block's way back is done.
//
// A block is entered before it runs, on the way there and on the way back. What lies outside of blocks
// is entered around a whole pass and stays until `dropUnits`; of the blocks the last one stays until
// another one comes, so that a pass that turns around does not load its last block twice.

import Basics
package import DenseKernels
import Tensors

extension ParameterSet {
  /// A unit in memory.
  struct PresentUnit {
    let elements: Buffer<Scalar>
    /// How many are in the block now.
    var holderCount: Int
  }

  /// Gradients on their way out.
  struct UnitGradients {
    /// Takes the finished gradient of a unit; nil stands for zero.
    let handOver: (_ unit: Int, _ gradient: Buffer<Scalar>?) -> Void
    var open: [Int: Buffer<Scalar>] = [:]
    var finished: Set<Int> = []
  }

  /// Whether entering a block has any effect.
  var comesAndGoes: Bool { source != nil || unitGradients != nil }

  // MARK: Elements

  /// Has a block in memory until `leave`; an empty name: all that lies outside of blocks.
  func enter(_ block: String) {
    guard let source else { return }
    for unit in layout.units.indices where layout.units[unit].block == block {
      if present[unit] != nil {
        present[unit]?.holderCount += 1
        continue
      }
      if !block.isEmpty { drop { !layout.units[$0].block.isEmpty && $1.holderCount == 0 } }
      let elements = arena.allocate(
        Scalar.self, count: layout.units[unit].range.count, booking: Booking(role, .parameters))
      source.load(unit, into: elements)
      show(elements, as: unit, holderCount: 1)
    }
  }

  func leave(_ block: String) {
    for unit in layout.units.indices where layout.units[unit].block == block {
      present[unit]?.holderCount -= 1
    }
  }

  /// Loads what a pass loads, in its order, and computes nothing: where the ranks of a group run unequal
  /// numbers of passes, all of them take part in loading.
  package func attendPass() {
    enter("")
    var blocks: [String] = []
    for unit in layout.units where !unit.block.isEmpty && !blocks.contains(unit.block) {
      blocks.append(unit.block)
    }
    for block in blocks {
      enter(block)
      leave(block)
    }
    leave("")
  }

  /// Lets go of all units and packed weights, because the elements change or will not be needed soon.
  /// - Precondition: no block is running.
  package func dropUnits() {
    require(present.values.allSatisfy { $0.holderCount == 0 }, "a block is still running")
    drop { _, _ in true }
    dropPackedWeights()
  }

  private func drop(where isDroppable: (Int, PresentUnit) -> Bool) {
    for (unit, state) in present where isDroppable(unit, state) {
      present[unit] = nil
      for index in layout.units[unit].entries { parameters[index].elements = nil }
    }
  }

  private func show(_ elements: Buffer<Scalar>, as unit: Int, holderCount: Int) {
    present[unit] = PresentUnit(elements: elements, holderCount: holderCount)
    let origin = layout.units[unit].range.lowerBound
    for index in layout.units[unit].entries {
      let entry = layout.entries[index]
      let range = entry.range.lowerBound - origin..<entry.range.upperBound - origin
      parameters[index].elements = Tensor(elements[range], shape: entry.shape)
    }
  }

  /// Lets `body` write the parameters, unit by unit where the set is not whole.
  /// - Parameter body: gets the places of parameters whose elements, cleared, are in memory.
  package func overwriteUnits(_ body: (_ entries: Range<Int>) throws -> Void) rethrows {
    dropUnits()
    guard let source else { return try body(layout.entries.indices) }
    for (index, unit) in layout.units.enumerated() {
      let elements = arena.allocate(
        Scalar.self, count: unit.range.count, booking: Booking(role, .parameters), zeroed: true)
      show(elements, as: index, holderCount: 0)
      defer { dropUnits() }
      try body(unit.entries)
      source.keep(index, elements)
    }
  }

  /// Lets `body` read the parameters, unit by unit where the set is not whole.
  package func readUnits(_ body: (_ entries: Range<Int>) throws -> Void) rethrows {
    guard let source else { return try body(layout.entries.indices) }
    dropUnits()
    for (index, unit) in layout.units.enumerated() {
      let elements = arena.allocate(
        Scalar.self, count: unit.range.count, booking: Booking(role, .parameters))
      source.load(index, into: elements)
      show(elements, as: index, holderCount: 0)
      defer { dropUnits() }
      try body(unit.entries)
    }
  }

  // MARK: Gradients

  /// From now on each unit has memory for its gradient only while its block is on the way back, and then
  /// hands it over. `finishUnitGradients` is due when all is differentiated.
  /// - Parameter handOver: takes the gradient of a unit, flat; nil stands for zero.
  package func bindGradients(
    handingOver handOver: @escaping (_ unit: Int, _ gradient: Buffer<Scalar>?) -> Void
  ) {
    bindGradients(to: nil)
    unitGradients = UnitGradients(handOver: handOver)
    for parameter in parameters {
      parameter.accumulatedGradient = Gradient(lentTo: parameter.shape)
    }
  }

  /// Hands over the units that nothing has contributed to, and freezes the network.
  package func finishUnitGradients() {
    guard let gradients = unitGradients else { return }
    require(gradients.open.isEmpty, "a block is still on its way back")
    for unit in layout.units.indices where !gradients.finished.contains(unit) {
      gradients.handOver(unit, nil)
    }
    bindGradients(to: nil)
  }

  /// Gives a block memory for its gradients.
  func openGradients(_ block: String) {
    guard unitGradients != nil else { return }
    for (index, unit) in layout.units.enumerated() where unit.block == block {
      require(
        unitGradients?.finished.contains(index) == false,
        "the gradient of \(block.isEmpty ? "what is outside of blocks" : block) was handed over: it "
          + "runs twice in one differentiation")
      let buffer = arena.allocate(
        Scalar.self, count: unit.range.count, booking: Booking(role, .gradients))
      unitGradients?.open[index] = buffer
      for entry in unit.entries {
        let range = layout.entries[entry].range
        let origin = unit.range.lowerBound
        parameters[entry].accumulatedGradient?.lend(
          Tensor(
            buffer[range.lowerBound - origin..<range.upperBound - origin],
            shape: layout.entries[entry].shape))
      }
    }
  }

  /// Hands over the gradients of a block.
  func closeGradients(_ block: String) {
    guard let gradients = unitGradients else { return }
    for (index, unit) in layout.units.enumerated() where unit.block == block {
      guard let buffer = gradients.open[index] else { trap("\(block) has no open gradient") }
      completeGradients(unit.entries, in: buffer, from: unit.range.lowerBound)
      for entry in unit.entries { parameters[entry].accumulatedGradient?.takeBack() }
      unitGradients?.open[index] = nil
      unitGradients?.finished.insert(index)
      gradients.handOver(index, buffer)
    }
  }
}

extension Tape {
  /// Runs a block of some sets with its parameters in memory, on the way there and on the way back.
  ///
  /// - Parameters:
  ///   - block: its name in the specifications; empty: what lies outside of blocks, around a pass.
  ///   - isDifferentiated: whether the way back comes through here.
  package func inBlock<Result>(
    _ block: String, of sets: [ParameterSet<Scalar>], isDifferentiated: Bool,
    _ body: () throws -> Result
  ) rethrows -> Result {
    let sets = sets.filter(\.comesAndGoes)
    guard !sets.isEmpty else { return try body() }
    let turnsBack = isRecording && isDifferentiated
    for set in sets { set.enter(block) }
    if turnsBack {
      onWayBack {
        for set in sets.reversed() {
          set.closeGradients(block)
          set.leave(block)
        }
      }
    }
    defer {
      for set in sets.reversed() { set.leave(block) }
      if turnsBack {
        onWayBack {
          for set in sets {
            set.enter(block)
            set.openGradients(block)
          }
        }
      }
    }
    return try body()
  }
}
