// Sums over rows in fixed blocks: right, and those of a part a subtree of those of all.

import Autodiff
import Basics
import DenseKernels
import Tensors
import Testing

struct RowSumsTests {
  /// Seven tokens of a sample in four blocks, one of them empty, one of two ranges.
  private static let blocks = RowSums.blocks(
    RowBlocks(tokenCount: 7, blocks: [[0..<2, 5..<6], [2..<2], [2..<5], [6..<7]]))

  @Test(arguments: [1.0, 0.25])
  func `a linear layer with its update has the gradients of all parameters`(scale: Double) {
    let check = GradientCheck(
      inputShapes: [[2, 7, 4]], parameterShapes: [[5, 4], [2, 4], [5, 2], [5]]
    ) { tape, x, p in
      tape.linear(
        x[0], weight: p[0], bias: p[3], update: LowRankUpdate(down: p[1], up: p[2], scale: scale),
        sums: Self.blocks)
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `a linear layer of parts has the gradients of its inputs and its weight`() {
    let check = GradientCheck(
      inputShapes: [[2, 7, 4], [2, 7, 3]], parameterShapes: [[5, 7], [5]]
    ) { tape, x, p in tape.linear(parts: x, weight: p[0], bias: p[1], sums: Self.blocks) }
    #expect(check.firstProblem() == nil)
  }

  @Test func `a modulated norm and a gated residual have gradients per sample`() {
    let check = GradientCheck(inputShapes: [[2, 7, 5], [2, 5], [2, 5], [2, 5]]) { tape, x, _ in
      let y = tape.layerNorm(
        x[0], scale: x[1], shift: x[2], epsilon: 1e-6, sums: Self.blocks)
      return tape.gatedResidual(x[0], gate: x[3], y, sums: Self.blocks)
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `a norm of heads has the gradient of its gain, rotated tokens and others`() {
    let angles = (0..<5 * 2).map { 0.3 * Double($0) }
    let rotation = RotaryTable<Double>(
      tokenCount: 5, cosines: angles.map { _ in 0.8 }, sines: angles.map { _ in 0.6 })
    let check = GradientCheck(inputShapes: [[2, 7, 12]], parameterShapes: [[4]]) { tape, x, p in
      tape.headNorm(
        x[0], gain: p[0], rotation: rotation, headCount: 3, epsilon: 1e-6, sums: Self.blocks)
    }
    #expect(check.firstProblem() == nil)
  }

  @Test
  func `what is counted elsewhere takes part in the record, and its parameter has no gradient`() {
    func gradients(_ sums: RowSums) -> (input: [Double]?, parameters: [Double]) {
      let arena = Arena()
      let set = ParameterSet<Double>(
        [
          ParameterSpecification("weight", [3, 2], .normal(deviation: 1)),
          ParameterSpecification("bias", [3], .normal(deviation: 1)),
        ], in: arena, role: .common)
      set.initialize(seed: 1)
      let flat = Buffer<Double>(zeroed: set.layout.count)
      set.bindGradients(to: flat, isCleared: false)
      let booking = Booking(.common, .activations)
      let tape = Tape<Double>(arena: arena, role: .common)
      let constant = Value(
        constant: Tensor([1.0, -2], shape: [1, 2], in: arena, booking: booking))
      let first = tape.linear(
        constant, weight: set["weight"], bias: set["bias"], sums: sums)
      // Nothing but the parameters made it so: the way back comes here in any case.
      #expect(first.isTracked)
      let input = tape.input(Tensor([0.5, 1, 2], shape: [1, 3], in: arena, booking: booking))
      tape.backward([
        (
          tape.multiply(input, first),
          Tensor([1.0, 1, 1], shape: [1, 3], in: arena, booking: booking)
        )
      ])
      set.completeGradients()
      return (tape.gradient(of: input)?.array, flat.array)
    }
    let (counted, elsewhere) = (gradients(.whole), gradients(.countedElsewhere))
    #expect(counted.parameters.contains { $0 != 0 })
    #expect(elsewhere.parameters.allSatisfy { $0 == 0 })
    #expect(elsewhere.input == counted.input && counted.input != nil)
  }

  /// Gradients of parameters and modulations, and of the input, in Float32.
  private struct Found: Equatable {
    var sums: [[Float]]
    var input: [Float]
  }

  /// A norm, a linear layer with update and a gated residual over some of the tokens.
  private func run(
    _ tokens: Range<Int>, of tokenCount: Int, blocks: [[Range<Int>]], precision: ProductPrecision
  ) -> Found {
    let (width, samples) = (48, 2)
    let arena = Arena()
    let booking = Booking(.common, .activations)
    func draws(_ number: Int, _ count: Int) -> [Float] {
      RandomStream(seed: 5, purpose: .tests, step: number).normals(count: count)
    }
    func cut(_ number: Int) -> Tensor<Float> {
      let all = draws(number, samples * tokenCount * width)
      var own: [Float] = []
      for sample in 0..<samples {
        let start = (sample * tokenCount + tokens.lowerBound) * width
        own += all[start..<start + tokens.count * width]
      }
      return Tensor(own, shape: [samples, tokens.count, width], in: arena, booking: booking)
    }
    func modulation(_ number: Int) -> Tensor<Float> {
      Tensor(draws(number, samples * width), shape: [samples, width], in: arena, booking: booking)
    }
    let set = ParameterSet<Float>(
      [
        ParameterSpecification("weight", [width, width], .normal(deviation: 0.1)),
        ParameterSpecification("bias", [width], .normal(deviation: 1)),
        ParameterSpecification("down", [3, width], .normal(deviation: 0.1)),
        ParameterSpecification("up", [width, 3], .normal(deviation: 0.1)),
        ParameterSpecification("gain", [16], .normal(deviation: 1)),
      ], in: arena, role: .common)
    set.initialize(seed: 2)
    set.bindGradients(
      to: arena.allocate(Float.self, count: set.layout.count, booking: booking), isCleared: false)
    let tape = Tape<Float>(arena: arena, role: .common, precision: precision)
    let sums = RowSums.blocks(RowBlocks(tokenCount: tokens.count, blocks: blocks))
    let x = tape.input(cut(1))
    let modulations = (2...4).map { tape.input(modulation($0)) }
    let normed = tape.layerNorm(
      x, scale: modulations[0], shift: modulations[1], epsilon: 1e-6, sums: sums)
    let h = tape.linear(
      normed, weight: set["weight"], bias: set["bias"],
      update: LowRankUpdate(down: set["down"], up: set["up"], scale: 0.5), sums: sums)
    let heads = tape.headNorm(h, gain: set["gain"], headCount: 3, epsilon: 1e-6, sums: sums)
    let y = tape.gatedResidual(x, gate: modulations[2], heads, sums: sums)
    tape.backward([(y, cut(5))])
    return Found(
      sums: (set.parameters.map { $0.gradient?.array ?? [] })
        + modulations.map { tape.gradient(of: $0)?.array ?? [] },
      input: tape.gradient(of: x)?.array ?? [])
  }

  /// The promise of canonical runs, operation by operation. Without AVX-512 it is not given.
  @Test(
    .enabled(if: BLASRuntime.hasAVX512), arguments: ProductPrecision.allCases,
    [(21, 10), (9, 4), (3, 1), (300, 150)])
  func `two halves of the blocks give the sums of all, bit for bit`(
    precision: ProductPrecision, tokens: (count: Int, half: Int)
  ) {
    func even(_ count: Int, _ from: Int) -> [[Range<Int>]] {
      let middle = from + count / 2
      return [[from..<middle], [middle..<from + count]]
    }
    let (low, high) = (tokens.half, tokens.count - tokens.half)
    let whole = run(
      0..<tokens.count, of: tokens.count, blocks: even(low, 0) + even(high, low),
      precision: precision)
    let halves = [(0..<low, even(low, 0)), (low..<tokens.count, even(high, 0))].map {
      run($0.0, of: tokens.count, blocks: $0.1, precision: precision)
    }
    for index in whole.sums.indices {
      let sum = zip(halves[0].sums[index], halves[1].sums[index]).map(+)
      #expect(!sum.isEmpty && sum == whole.sums[index], "\(index)")
    }
    var input: [Float] = []
    for sample in 0..<2 {
      for half in halves {
        let length = half.input.count / 2
        input += half.input[sample * length..<(sample + 1) * length]
      }
    }
    #expect(input == whole.input)
  }
}
