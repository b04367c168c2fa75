// Blocks that are loaded while others are computed with.

import Autodiff
import DenseKernels
import Tensors
import Testing

/// Notes what is asked for, and fills in the number of the unit when it is waited for.
private final class NotingSource: UnitSource {
  var notes: [String] = []
  var isAhead: Bool
  let count: Int

  init(isAhead: Bool, count: Int) {
    self.isAhead = isAhead
    self.count = count
  }

  func load(_ unit: Int, into elements: Buffer<Double>) {
    notes.append("load \(unit)")
    elements.fill(with: Double(unit))
  }
  func keep(_ unit: Int, _ elements: Buffer<Double>) {}
  func part(of unit: Int) -> UnitPart { UnitPart(count: count, entries: [(0..<count, [count])]) }
  func loadPart(of unit: Int, into elements: Buffer<Double>) { load(unit, into: elements) }
  func loadsAhead(_ extent: UnitExtent) -> Bool { isAhead }
  func startLoading(
    _ unit: Int, _ extent: UnitExtent, into elements: Buffer<Double>
  ) -> () -> Void {
    notes.append("start \(unit)")
    return { [self] in
      notes.append("wait \(unit)")
      elements.fill(with: Double(unit))
    }
  }
}

@Suite struct BlockLoadingTests {
  /// Blocks 0, 1, 2 of a parameter each.
  private func example(isAhead: Bool) -> (NotingSource, ParameterSet<Double>, Arena) {
    let arena = Arena()
    let specifications = (0..<3).map {
      ParameterSpecification("b\($0).weight", [4], .zeros, block: "b\($0)")
    }
    let source = NotingSource(isAhead: isAhead, count: 4)
    let set = ParameterSet<Double>(
      specifications, in: arena, role: .generator, source: source)
    return (source, set, arena)
  }

  /// There and back; what each block saw.
  private func pass(
    _ source: NotingSource, _ set: ParameterSet<Double>, _ arena: Arena
  ) -> [Double] {
    let tape = Tape<Double>(arena: arena, role: .generator)
    var seen: [Double] = []
    var x = tape.input(Tensor(shape: [4], in: arena, booking: Booking(.generator, .activations)))
    x.tensor.buffer.fill(with: 1)
    for index in 0..<3 {
      x = tape.inBlock("b\(index)", of: [set], isDifferentiated: true) {
        source.notes.append("run \(index)")
        seen.append(set["b\(index).weight"].value.buffer[3])
        return tape.add(x, x)
      }
    }
    let seed = Tensor<Double>(shape: [4], in: arena, booking: Booking(.generator, .activations))
    seed.buffer.fill(with: 1)
    source.notes.append("back")
    tape.backward([(x, seed)])
    return seen
  }

  @Test func `the next block of a pass begins to load before one runs, there and back`() {
    let (source, set, arena) = example(isAhead: true)
    #expect(pass(source, set, arena) == [0, 1, 2])
    #expect(
      source.notes == [
        "load 0", "start 1", "run 0", "wait 1", "start 2", "run 1", "wait 2", "run 2",
        // Two blocks are in memory where the pass turns around.
        "back", "start 0", "wait 0",
      ])
  }

  @Test func `what was loaded ahead and is not wanted is waited for before its memory goes`() {
    let (source, set, arena) = example(isAhead: true)
    let tape = Tape<Double>(arena: arena, role: .generator, isRecording: false)
    tape.inBlock("b0", of: [set], isDifferentiated: false) {}
    set.dropUnits()
    #expect(source.notes == ["load 0", "start 1", "wait 1"])
    tape.inBlock("b1", of: [set], isDifferentiated: false) {}
    #expect(source.notes.suffix(2) == ["load 1", "start 2"])
    set.dropUnits()
  }

  @Test func `a source that cannot load ahead is asked block by block`() {
    let (source, set, arena) = example(isAhead: false)
    #expect(pass(source, set, arena) == [0, 1, 2])
    #expect(
      source.notes == [
        "load 0", "run 0", "load 1", "run 1", "load 2", "run 2", "back", "load 1", "load 0",
      ])
  }

  @Test func `loading ahead takes memory for one more block`() {
    let peaks = [false, true].map { isAhead in
      let (source, set, arena) = example(isAhead: isAhead)
      _ = pass(source, set, arena)
      return arena.ledger.entries.first { $0.category == .parameters }?.peakByteCount ?? 0
    }
    #expect(peaks[0] > 0 && peaks[1] == 2 * peaks[0], "\(peaks)")
  }
}
