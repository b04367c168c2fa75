// The tape itself: who gets a gradient, recomputation, and memory.

import Autodiff
import Basics
import DenseKernels
import Tensors
import Testing

/// Two layers with parameters, in Float.
private struct Network {
  let arena = Arena()
  let set: ParameterSet<Float>
  let booking = Booking(.generator, .activations)

  init() {
    set = ParameterSet(
      [
        ParameterSpecification("first", [6, 4], .normal(deviation: 0.5)),
        ParameterSpecification("bias", [6], .normal(deviation: 0.5)),
        ParameterSpecification("second", [4, 6], .normal(deviation: 0.5)),
      ], in: arena, role: .generator)
    set.initialize(seed: 3)
  }

  func tensor(_ shape: [Int], _ sample: Int) -> Tensor<Float> {
    let stream = RandomStream(seed: 5, purpose: .tests, sample: sample)
    return Tensor(
      stream.normals(count: shape.reduce(1, *)), shape: shape, in: arena, booking: booking)
  }

  func block(_ tape: Tape<Float>, _ x: Value<Float>) -> Value<Float> {
    let hidden = tape.apply(
      .geluTanh, to: tape.linear(x, weight: set["first"], bias: set["bias"]))
    return tape.add(x, tape.linear(hidden, weight: set["second"]))
  }

  /// Gradients of parameters and input, through three blocks that share their weights.
  func gradients(recomputing: Bool) -> (flat: [Float], input: [Float], peak: Int) {
    let flat = arena.allocate(
      Float.self, count: set.layout.count, booking: Booking(.generator, .gradients), zeroed: true)
    set.bindGradients(to: flat)
    defer { set.bindGradients(to: nil) }
    arena.resetPeaks()
    let tape = Tape<Float>(arena: arena, role: .generator)
    let input = tape.input(tensor([50, 4], 0))
    var x = input
    for _ in 0..<3 {
      x =
        recomputing
        ? tape.recomputing([x]) { tape, inputs in [block(tape, inputs[0])] }[0] : block(tape, x)
    }
    // The output of the last block is used twice, the input again at the end.
    let output = tape.add(tape.multiply(x, x), input)
    tape.backward([(output, tensor([50, 4], 1))])
    return (
      flat.array, tape.gradient(of: input)?.array ?? [],
      arena.ledger.peakByteCount(of: booking)
    )
  }
}

struct TapeTests {
  @Test func `recomputing gives the same bits as recording and takes less memory`() {
    let network = Network()
    let recorded = network.gradients(recomputing: false)
    let recomputed = network.gradients(recomputing: true)
    #expect(recorded.flat == recomputed.flat)
    #expect(recorded.input == recomputed.input)
    #expect(recorded.flat.contains { $0 != 0 })
    #expect(recomputed.peak < recorded.peak)
  }

  /// Two linear layers of a value that they do not keep; its memory is filled with another's meanwhile.
  @Test(arguments: [false, true])
  func `elements that are not kept are made again once, for gradients of weights`(trains: Bool) {
    func run(remakes: Bool) -> (flat: [Float], input: [Float], count: Int) {
      let network = Network()
      let (arena, set) = (network.arena, network.set)
      let flat = arena.allocate(
        Float.self, count: set.layout.count, booking: Booking(.generator, .gradients), zeroed: true)
      if trains { set.bindGradients(to: flat) }
      let tape = Tape<Float>(arena: arena, role: .generator)
      let input = tape.input(network.tensor([50, 4], 0))
      var count = 0
      func outputs() -> Value<Float> {
        let squares = tape.multiply(input, input)
        let elements = squares.tensor.array
        let value =
          remakes
          ? squares.remade {
            count += 1
            return Tensor(elements, shape: [50, 4], in: arena, booking: network.booking)
          } : squares
        let layers = (0..<2).map { _ in
          tape.linear(value, weight: set["first"], bias: set["bias"])
        }
        if remakes { squares.tensor.buffer.fill(with: .nan) }
        return tape.add(layers[0], layers[1])
      }
      tape.backward([(outputs(), network.tensor([50, 6], 1))])
      return (flat.array, tape.gradient(of: input)?.array ?? [], count)
    }
    let (kept, remade) = (run(remakes: false), run(remakes: true))
    #expect(remade.flat == kept.flat && remade.input == kept.input && !kept.input.isEmpty)
    #expect(kept.flat.contains { $0 != 0 } == trains)
    #expect(remade.count == (trains ? 1 : 0))
  }

  @Test func `recomputation has the gradients of many inputs and outputs`() {
    let check = GradientCheck(inputShapes: [[2, 3], [2, 3]], parameterShapes: [[3, 3]]) {
      tape, x, p in
      let parts = tape.recomputing([x[0], x[1], x[0]]) { tape, inputs in
        let y = tape.linear(tape.multiply(inputs[0], inputs[1]), weight: p[0])
        return [tape.apply(.silu, to: y), tape.add(inputs[2], y)]
      }
      return tape.multiply(parts[0], tape.multiply(parts[1], x[1]))
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `a recomputation inside a recomputation has the same gradients`() {
    let check = GradientCheck(inputShapes: [[2, 3]], parameterShapes: [[3, 3]]) { tape, x, p in
      tape.recomputing([x[0]]) { tape, inputs in
        let inner = tape.recomputing(inputs) { tape, inputs in
          [tape.apply(.silu, to: tape.linear(inputs[0], weight: p[0]))]
        }
        return [tape.multiply(inner[0], inputs[0])]
      }[0]
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `an unused output of a recomputation does no harm`() {
    let check = GradientCheck(inputShapes: [[2, 3], [2, 3]]) { tape, x, _ in
      let parts = tape.recomputing([x[0], x[1]]) { tape, inputs in
        [tape.apply(.silu, to: inputs[0]), tape.apply(.silu, to: inputs[1])]
      }
      return parts[1]
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `a value used twice gets both gradients`() {
    let check = GradientCheck(inputShapes: [[2, 3]], parameterShapes: [[3]]) { tape, x, p in
      let gain = tape.use(p[0]).reshaped([1, 3])
      let again = tape.use(p[0]).reshaped([1, 3])
      let rows = tape.concatenate([gain, again], along: 0)
      return tape.multiply(tape.multiply(x[0], x[0]), rows)
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `a frozen network records nothing and gets no gradient`() {
    let network = Network()
    let before = network.arena.ledger.totalLiveByteCount
    let tape = Tape<Float>(arena: network.arena, role: .base)
    let output = network.block(tape, Value(constant: network.tensor([5, 4], 0)))
    #expect(!output.isTracked)
    #expect(network.set["first"].gradient == nil)
    #expect(network.arena.ledger.totalLiveByteCount > before)
  }

  @Test func `gradients flow through a frozen network into its input`() {
    let network = Network()
    let tape = Tape<Float>(arena: network.arena, role: .base)
    let input = tape.input(network.tensor([5, 4], 0))
    tape.backward([(network.block(tape, input), network.tensor([5, 4], 1))])
    #expect(tape.gradient(of: input)?.array.contains { $0 != 0 } == true)
    #expect(network.set.gradients == nil)
  }

  @Test func `a detached value stops its gradient`() {
    let check = GradientCheck(inputShapes: [[2, 3]]) { tape, x, _ in
      // d/dx (x + (2x − 2x)) = 1, although the forward pass sees the detached part.
      let doubled = tape.combine(2, x[0], 0, x[0])
      let cancelled = tape.combine(1, doubled.detached, -1, doubled.detached)
      return tape.add(x[0], cancelled)
    }
    #expect(check.firstProblem() == nil)
    let network = Network()
    let tape = Tape<Float>(arena: network.arena, role: .base)
    let input = tape.input(network.tensor([2], 0))
    tape.backward([(tape.multiply(input, input.detached), network.tensor([2], 1))])
    let expected = zip(input.tensor.array, network.tensor([2], 1).array).map { $0 * $1 }
    #expect(tape.gradient(of: input)?.array == expected)
  }

  @Test func `activations are given back once they are differentiated`() {
    let network = Network()
    let account = network.booking
    let gradients = Buffer<Float>(zeroed: network.set.layout.count)
    network.set.bindGradients(to: gradients)
    let input = network.tensor([50, 4], 0)
    let seed = network.tensor([50, 4], 1)
    let before = network.arena.ledger.liveByteCount(of: account)
    for recomputing in [false, true] {
      let tape = Tape<Float>(arena: network.arena, role: .generator)
      do {
        var x = Value(constant: input)
        for _ in 0..<3 {
          x =
            recomputing
            ? tape.recomputing([x]) { tape, inputs in [network.block(tape, inputs[0])] }[0]
            : network.block(tape, x)
        }
        #expect(network.arena.ledger.liveByteCount(of: account) > before)
        tape.backward([(x, seed)])
      }
      #expect(network.arena.ledger.liveByteCount(of: account) == before)
      #expect(network.arena.ledger.liveByteCount(of: Booking(.generator, .workspace)) == 0)
    }
  }

  @Test func `gradients accumulate over tapes until they are cleared`() {
    let network = Network()
    let gradients = Buffer<Float>(zeroed: network.set.layout.count)
    network.set.bindGradients(to: gradients)
    func run() {
      let tape = Tape<Float>(arena: network.arena, role: .generator)
      let x = Value(constant: network.tensor([3, 4], 0))
      tape.backward([(network.block(tape, x), network.tensor([3, 4], 1))])
    }
    run()
    let once = gradients.array
    run()
    // Doubling is exact only up to the rounding of each accumulation; one unit in the last place.
    #expect(zip(gradients.array, once).allSatisfy { abs($0 - 2 * $1) <= abs($1) * 0x1p-20 })
    #expect(once.contains { $0 != 0 })
  }
}
