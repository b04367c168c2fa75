// Blocks that come and go: the elements of a set that is not whole, and gradients that are handed over
// as soon as a block's way back is done.
//
// A block is entered before it runs, on the way there and on the way back. What lies outside of blocks
// is entered around a whole pass and stays until `dropUnits`; of the blocks the last one stays until
// another one comes, so that a pass that turns around does not load its last block twice.
//
// A source that can load beside other work is asked for the next block of the pass when one is entered, so that
// two of them are in memory.
//
// Where the source cuts parameters (tensor parallelism) a pass may ask for a block's part instead of all
// of it: the shapes of values are then those of the parts, and so are the gradients that are handed over.
// Where the source belongs to a stage of a pipeline, a pass may ask for the units of that stage alone.

import Basics
package import DenseKernels
import Tensors

extension ParameterSet {
  /// A unit in memory.
  struct PresentUnit {
    let elements: Buffer<Scalar>
    let extent: UnitExtent
    /// How many are in the block now.
    var holderCount: Int
    /// Waits for the elements, while they are being loaded.
    var finishLoading: (() -> Void)?
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
  func enter(_ block: String, _ extent: UnitExtent = .whole, _ direction: PassDirection = .forward)
  {
    guard let source else { return }
    for unit in units(of: block, extent) {
      if let state = present[unit], state.extent == extent {
        state.finishLoading?()
        present[unit]?.finishLoading = nil
        present[unit]?.holderCount += 1
        continue
      }
      require(
        present[unit].map { $0.holderCount == 0 } ?? true,
        "\(block) is running, and is wanted as \(extent) as well")
      drop { other, _ in other == unit }
      if !block.isEmpty { dropIdleBlocks() }
      let elements = arena.allocate(
        Scalar.self, count: memoryCount(of: unit, extent), booking: Booking(role, .parameters))
      switch extent {
      case .whole: source.load(unit, into: elements)
      case .part, .partOfStage: source.loadPart(of: unit, into: elements)
      case .stage: source.loadInStage(unit, into: elements)
      }
      show(elements, as: unit, extent, holderCount: 1)
    }
    if !block.isEmpty { loadAhead(of: block, extent, direction) }
  }

  /// Begins to load the block that the pass comes to next, where the source can.
  ///
  /// Where none comes, the one before stays in memory: a pass may turn around.
  private func loadAhead(of block: String, _ extent: UnitExtent, _ direction: PassDirection) {
    guard let source, source.loadsAhead(extent),
      let next = nextUnit(after: block, extent, direction)
    else { return }
    dropIdleBlocks(but: next)
    if present[next]?.extent == extent { return }
    drop { unit, _ in unit == next }
    let elements = arena.allocate(
      Scalar.self, count: memoryCount(of: next, extent), booking: Booking(role, .parameters))
    show(elements, as: next, extent, holderCount: 0)
    present[next]?.finishLoading = source.startLoading(next, extent, into: elements)
  }

  private func nextUnit(
    after block: String, _ extent: UnitExtent, _ direction: PassDirection
  ) -> Int? {
    let blocks = layout.units.indices.filter { unit in
      !layout.units[unit].block.isEmpty && (!extent.isOfStage || source?.isInStage(unit) ?? true)
    }
    guard let place = blocks.firstIndex(where: { layout.units[$0].block == block }) else {
      return nil
    }
    let next = place + (direction == .forward ? 1 : -1)
    return blocks.indices.contains(next) ? blocks[next] : nil
  }

  func leave(_ block: String, _ extent: UnitExtent = .whole) {
    for unit in units(of: block, extent) { present[unit]?.holderCount -= 1 }
  }

  /// The units of a block that a pass has in memory.
  private func units(of block: String, _ extent: UnitExtent) -> [Int] {
    layout.units.indices.filter { unit in
      layout.units[unit].block == block
        && (!extent.isOfStage || source?.isInStage(unit) ?? true)
    }
  }

  /// Elements of a unit in memory.
  private func memoryCount(of unit: Int, _ extent: UnitExtent) -> Int {
    if extent.isPart, let source { return source.part(of: unit).count }
    return layout.units[unit].range.count
  }

  /// Loads what a pass loads, in its order, and computes nothing: where the ranks of a group run unequal
  /// numbers of passes, all of them take part in loading.
  /// - Parameter extent: of blocks, in such a pass.
  package func attendPass(_ extent: UnitExtent = .whole) {
    let outside = extent.outsideOfBlocks
    enter("", outside)
    var blocks: [String] = []
    for unit in layout.units where !unit.block.isEmpty && !blocks.contains(unit.block) {
      blocks.append(unit.block)
    }
    for block in blocks {
      enter(block, extent)
      leave(block, extent)
    }
    leave("", outside)
  }

  /// Lets go of all units and packed weights, because the elements change or will not be needed soon.
  /// - Precondition: no block is running.
  package func dropUnits() {
    require(present.values.allSatisfy { $0.holderCount == 0 }, "a block is still running")
    drop { _, _ in true }
    dropPackedWeights()
  }

  private func dropIdleBlocks(but kept: Int? = nil) {
    drop { !layout.units[$0].block.isEmpty && $0 != kept && $1.holderCount == 0 }
  }

  private func drop(where isDroppable: (Int, PresentUnit) -> Bool) {
    // In their order, since waiting for elements is collective.
    for (unit, state) in present.sorted(by: { $0.key < $1.key }) where isDroppable(unit, state) {
      state.finishLoading?()
      present[unit] = nil
      for index in layout.units[unit].entries { parameters[index].elements = nil }
    }
  }

  private func show(
    _ elements: Buffer<Scalar>, as unit: Int, _ extent: UnitExtent = .whole, holderCount: Int
  ) {
    present[unit] = PresentUnit(elements: elements, extent: extent, holderCount: holderCount)
    for (index, place) in zip(layout.units[unit].entries, places(in: unit, extent)) {
      parameters[index].elements = Tensor(elements[place.range], shape: place.shape)
    }
  }

  /// Where the parameters of a unit lie in its memory, and their shapes there.
  private func places(in unit: Int, _ extent: UnitExtent) -> [(range: Range<Int>, shape: [Int])] {
    if extent.isPart, let source { return source.part(of: unit).entries }
    let origin = layout.units[unit].range.lowerBound
    return layout.entries[layout.units[unit].entries].map {
      ($0.range.lowerBound - origin..<$0.range.upperBound - origin, $0.shape)
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
  /// - Parameter handOver: takes the gradient of a unit, or of this rank's part where the block ran with
  ///   that, flat; nil stands for zero.
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
    guard unitGradients != nil else { return }
    renewUnitGradients()
    bindGradients(to: nil)
  }

  /// The same, and goes on: from now on the gradients of the next microbatch are handed over.
  package func renewUnitGradients() {
    guard let gradients = unitGradients else { return }
    require(gradients.open.isEmpty, "a block is still on its way back")
    for unit in layout.units.indices where !gradients.finished.contains(unit) {
      gradients.handOver(unit, nil)
    }
    unitGradients?.finished = []
  }

  /// Gives a block memory for its gradients.
  func openGradients(_ block: String, _ extent: UnitExtent = .whole) {
    guard unitGradients != nil else { return }
    let extent = source == nil ? .whole : extent
    for index in units(of: block, extent) {
      require(
        unitGradients?.finished.contains(index) == false,
        "the gradient of \(block.isEmpty ? "what is outside of blocks" : block) was handed over: it "
          + "runs twice in one differentiation")
      let buffer = arena.allocate(
        Scalar.self, count: memoryCount(of: index, extent), booking: Booking(role, .gradients))
      unitGradients?.open[index] = buffer
      for (entry, place) in zip(layout.units[index].entries, places(in: index, extent)) {
        parameters[entry].accumulatedGradient?.lend(
          Tensor(buffer[place.range], shape: place.shape))
      }
    }
  }

  /// Hands over the gradients of a block.
  func closeGradients(_ block: String, _ extent: UnitExtent = .whole) {
    guard let gradients = unitGradients else { return }
    for index in units(of: block, extent) {
      guard let buffer = gradients.open[index] else { trap("\(block) has no open gradient") }
      let entries = layout.units[index].entries
      completeGradients(entries, at: places(in: index, extent).map(\.range), in: buffer)
      for entry in entries { parameters[entry].accumulatedGradient?.takeBack() }
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
  ///   - extent: how much of the parameters it computes with.
  ///   - isDifferentiated: whether the way back comes through here.
  package func inBlock<Result>(
    _ block: String, of sets: [ParameterSet<Scalar>], extent: UnitExtent = .whole,
    isDifferentiated: Bool, _ body: () throws -> Result
  ) rethrows -> Result {
    let sets = sets.filter(\.comesAndGoes)
    guard !sets.isEmpty else { return try body() }
    let turnsBack = isRecording && isDifferentiated
    for set in sets { set.enter(block, extent, isRecomputing ? .back : .forward) }
    if turnsBack {
      onWayBack {
        for set in sets.reversed() {
          set.closeGradients(block, extent)
          set.leave(block, extent)
        }
      }
    }
    defer {
      for set in sets.reversed() { set.leave(block, extent) }
      if turnsBack {
        onWayBack {
          for set in sets {
            set.enter(block, extent, .back)
            set.openGradients(block, extent)
          }
        }
      }
    }
    return try body()
  }
}
