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
}
