import Autodiff
import Basics
import DenseKernels
import Foundation
import Tensors
import TestSupport
import Testing

@testable import Training

@Suite struct FileActivationStoreTests {
  private static let count = FileActivationStore<Float>.smallestCount + 3

  private func elements(_ number: Int) -> [Float] {
    RandomStream(seed: 1, purpose: .tests, sample: number).normals(count: Self.count)
  }

  private func withStore(
    _ body: (FileActivationStore<Float>, Arena, _ failures: () -> [any Error]) throws -> Void
  ) throws {
    try withTemporaryFolder { folder in
      let arena = Arena()
      var failures: [any Error] = []
      let store = try FileActivationStore<Float>(in: folder, arena: arena) { work in
        do { try work() } catch { failures.append(error) }
      }
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
      try body(store, arena) { failures }
    }
  }

  private let booking = Booking(.generator, .activations)

  private func liveCount(_ arena: Arena) -> Int {
    let entry = arena.ledger.entries.first { $0.role == .generator && $0.category == .activations }
    // Blocks are rounded up by less than a 64th.
    return (entry?.liveByteCount ?? 0) / (4 * Self.count)
  }

  @Test(arguments: [1, 2, 3, 9])
  func `what was stored comes back, with at most two in memory`(_ total: Int) throws {
    try withStore { store, arena, failures in
      var tickets: [any StoredActivation<Float>] = []
      for number in 0..<total {
        let buffer = arena.allocate(Float.self, count: Self.count, booking: booking)
        buffer.copy(from: elements(number))
        tickets.append(try #require(store.store(buffer, booking: booking)))
      }
      #expect(liveCount(arena) <= 2)
      while let ticket = tickets.popLast() {
        let number = tickets.count
        #expect(ticket.load().array == elements(number))
        #expect(liveCount(arena) <= 2)
      }
      #expect(liveCount(arena) == 0 && failures().isEmpty)
    }
  }

  @Test func `microbatches in flight have an order each, and share the file`() throws {
    try withStore { store, arena, failures in
      let (perMicrobatch, inFlight) = (4, 3)
      var tickets: [Int: [any StoredActivation<Float>]] = [:]
      for microbatch in 0..<9 {
        store.microbatch = microbatch
        for number in 0..<perMicrobatch {
          let buffer = arena.allocate(Float.self, count: Self.count, booking: booking)
          buffer.copy(from: elements(microbatch * perMicrobatch + number))
          tickets[microbatch, default: []].append(
            try #require(store.store(buffer, booking: booking)))
        }
        #expect(liveCount(arena) <= 2)
        guard microbatch >= inFlight else { continue }
        // The oldest one's way back.
        store.microbatch = microbatch - inFlight
        for number in (0..<perMicrobatch).reversed() {
          let ticket = tickets[microbatch - inFlight]?.popLast()
          let expected = elements((microbatch - inFlight) * perMicrobatch + number)
          #expect(ticket?.load().array == expected)
          // Those that came last, and the two of the way back.
          #expect(liveCount(arena) <= 4)
        }
      }
      #expect(store.fileByteCount <= (inFlight + 2) * perMicrobatch * Self.count * 4)
      #expect(failures().isEmpty)
    }
  }

  @Test func `small ones stay, and a forgotten one gives its place to the next`() throws {
    try withStore { store, arena, failures in
      #expect(store.store(Buffer<Float>(zeroed: 5), booking: booking) == nil)
      for round in 0..<3 {
        let numbers = (0..<4).map { 4 * round + $0 }
        var tickets = numbers.map { store.store(Buffer(elements($0)), booking: booking) }
        // A tape that is dropped in the middle takes nothing back.
        if round == 1 { continue }
        for number in numbers.reversed() {
          #expect(tickets.popLast()??.load().array == elements(number))
        }
      }
      #expect(failures().isEmpty)
    }
  }

  @Test func `gradients through stored inputs have the same bits`() throws {
    try withStore { store, arena, failures in
      let width = 64
      let specifications = (0..<6).map {
        ParameterSpecification("b\($0).weight", [width, width], .normal(deviation: 0.2))
      }
      func run(_ store: FileActivationStore<Float>?) -> [[Float]] {
        let set = ParameterSet<Float>(specifications, in: arena, role: .generator)
        set.initialize(seed: 3)
        let gradients = Buffer<Float>(zeroed: set.layout.count)
        set.bindGradients(to: gradients)
        let tape = Tape<Float>(arena: arena, role: .generator, store: store)
        let input = tape.input(
          Tensor(
            RandomStream(seed: 2, purpose: .tests).normals(count: 100 * width),
            shape: [100, width], in: arena, booking: booking))
        var x = input
        for index in 0..<6 {
          x =
            tape.recomputing([x]) { tape, inputs in
              [tape.apply(.silu, to: tape.linear(inputs[0], weight: set["b\(index).weight"]))]
            }[0]
        }
        tape.backward([(x, x.tensor)])
        return [gradients.array, tape.gradient(of: input)?.array ?? []]
      }
      let (kept, stored) = (run(nil), run(store))
      #expect(kept == stored && kept[1].contains { $0 != 0 } && failures().isEmpty)
    }
  }

  @Test func `a file that cannot grow is told, not thrown`() throws {
    var failures: [any Error] = []
    let store = FileActivationStore<Float>(
      try PositionedFile("/dev/full", for: .creating), arena: Arena()
    ) { work in
      do { try work() } catch { failures.append(error) }
    }
    let tickets = (0..<3).map { store.store(Buffer(elements($0)), booking: booking) }
    #expect((failures.first as? SystemCallError)?.isOutOfSpace == true)
    withExtendedLifetime(tickets) {}
  }

  @Test func `a folder that cannot be made is an error of the start`() {
    #expect(throws: (any Error).self) {
      try FileActivationStore<Float>(in: URL(filePath: "/proc/none"), arena: Arena()) { _ in }
    }
  }
}
