import Autodiff
import Basics
import DenseKernels
import Tensors
import Testing

struct ParameterTests {
  let specifications = [
    ParameterSpecification("a", [3, 5], .uniform(bound: 0.5)),
    ParameterSpecification("b", [16], .ones),
    ParameterSpecification("c", [1], .normal(deviation: 2)),
    ParameterSpecification("d", [2, 0], .zeros),
    ParameterSpecification("e", [17], .normal(deviation: 1)),
  ]

  @Test func `tensors are cuts of one flat buffer at multiples of sixteen`() {
    let layout = FlatLayout(specifications)
    #expect(layout.entries.map(\.range) == [0..<15, 16..<32, 32..<33, 48..<48, 48..<65])
    #expect(layout.count == 80)
    #expect(layout.parameterCount == 49)
  }

  @Test func `values start by seed and place, and padding stays zero`() {
    let arena = Arena()
    let set = ParameterSet<Float>(specifications, in: arena, role: .generator)
    set.initialize(seed: 1)
    #expect(set["b"].value.array == Array(repeating: 1, count: 16))
    #expect(set["a"].value.array.allSatisfy { abs($0) <= 0.5 && $0 != 0 })
    #expect(set.values[15] == 0 && set.values[33..<48].array.allSatisfy { $0 == 0 })
    let stream = RandomStream(seed: 1, purpose: .parameterInitialization, sample: 0)
    #expect(
      set["a"].value.array == (0..<15).map { Float((2 * stream.uniform(at: $0) - 1) * 0.5) })
    let same = ParameterSet<Double>(specifications, in: arena, role: .fake)
    same.initialize(seed: 1)
    #expect(same.values.array.map { Float($0) } == set.values.array)
    same.initialize(seed: 2)
    #expect(same["e"].value.array != set["e"].value.array.map { Double($0) })
  }

  @Test func `writing to the flat buffer changes the tensor`() {
    let set = ParameterSet<Float>(specifications, in: Arena(), role: .generator)
    set.values[32] = 42
    #expect(set["c"].value.array == [42])
    #expect(set.contains("c") && !set.contains("f"))
  }

  /// Writes of every kind must reach the next pass: a copy of what the weight was would be a silent error.
  @Test(arguments: ProductPrecision.allCases)
  func `layers with weights kept packed see every change of them`(precision: ProductPrecision) {
    let arena = Arena()
    let layer = [
      ParameterSpecification("l.weight", [40, 33], .normal(deviation: 1)),
      ParameterSpecification("l.bias", [40], .zeros),
    ]
    let (plain, kept) = (
      ParameterSet<Float>(layer, in: arena, role: .base),
      ParameterSet<Float>(layer, in: arena, role: .generator)
    )
    kept.keepPackedWeights()
    let stream = RandomStream(seed: 1, purpose: .tests)
    let input = Tensor(Buffer(stream.normals(count: 9 * 33)), shape: [9, 33])
    func output(_ set: ParameterSet<Float>) -> [Float] {
      let tape = Tape<Float>(arena: arena, role: .common, precision: precision, isRecording: false)
      return tape.linear(
        Value(constant: input), weight: set["l.weight"], bias: set["l.bias"]
      ).tensor.array
    }
    let writes: [(ParameterSet<Float>) -> Void] = [
      { $0.initialize(seed: 5) }, { $0.values[3] = 7 },
      { set in set.overwriteUnits { _ in set["l.weight"].value.buffer.fill(with: 0.5) } },
      { set in
        set["l.weight"].value.buffer[1] = -3
        set.dropUnits()
      },
    ]
    var outputs: Set<[Float]> = []
    for write in writes {
      for set in [plain, kept] { write(set) }
      #expect(output(plain) == output(kept))
      #expect(output(plain) == output(kept), "a second pass")
      outputs.insert(output(kept))
    }
    #expect(outputs.count == writes.count)
    let booked = arena.ledger.entries.first { $0.role == .generator && $0.category == .workspace }
    #expect((booked?.liveByteCount ?? 0) == 4 * kept.layout.packedWordCount(precision))
  }
}
