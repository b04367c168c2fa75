// Every differentiable operation against central differences, with sizes that are all unequal.

import Autodiff
import DenseKernels
import Tensors
import Testing

struct LinearTests {
  @Test func `a linear layer has the gradients of its input, weight and bias`() {
    let check = GradientCheck(inputShapes: [[2, 3, 4]], parameterShapes: [[5, 4], [5]]) {
      tape, x, p in tape.linear(x[0], weight: p[0], bias: p[1])
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `a bias by itself has the sum of the rows' gradients`() {
    let check = GradientCheck(inputShapes: [[2, 3, 5]], parameterShapes: [[5]]) { tape, x, p in
      let y = tape.add(tape.multiply(x[0], x[0]), bias: p[0])
      return tape.multiply(y, y)
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `a linear layer without bias takes a patch weight of many dimensions`() {
    let check = GradientCheck(inputShapes: [[3, 12]], parameterShapes: [[5, 2, 3, 2]]) {
      tape, x, p in tape.linear(x[0], weight: p[0])
    }
    #expect(check.firstProblem() == nil)
  }

  @Test(arguments: [1.0, 0.25, -2.0])
  func `a low-rank update has the gradients of both factors at any scale`(scale: Double) {
    for hasBias in [false, true] {
      let check = GradientCheck(
        inputShapes: [[2, 3, 4]], parameterShapes: [[5, 4], [2, 4], [5, 2], [5]]
      ) { tape, x, p in
        let y = tape.linear(
          x[0], weight: p[0], bias: hasBias ? p[3] : nil,
          update: LowRankUpdate(down: p[1], up: p[2], scale: scale))
        return hasBias ? y : tape.add(y, tape.slice(y, along: 0, 0..<2))
      }
      #expect(check.firstProblem() == nil, "bias \(hasBias)")
    }
  }

  @Test func `an update of scale zero leaves the factors without gradient`() {
    let check = GradientCheck(inputShapes: [[3, 4]], parameterShapes: [[5, 4], [2, 4], [5, 2]]) {
      tape, x, p in
      tape.linear(x[0], weight: p[0], update: LowRankUpdate(down: p[1], up: p[2], scale: 0))
    }
    #expect(check.firstProblem() == nil)
  }
}

struct NormalizationTests {
  @Test func `a modulated norm has gradients per sample`() {
    for (hasScale, hasShift) in [(true, true), (true, false), (false, true), (false, false)] {
      let check = GradientCheck(inputShapes: [[2, 3, 5], [2, 5], [2, 5]]) { tape, x, _ in
        tape.layerNorm(
          x[0], scale: hasScale ? x[1] : nil, shift: hasShift ? x[2] : nil, epsilon: 1e-6)
      }
      #expect(check.firstProblem() == nil, "scale \(hasScale), shift \(hasShift)")
    }
  }

  @Test func `an affine norm has gradients summed over all rows`() {
    let check = GradientCheck(inputShapes: [[2, 3, 5]], parameterShapes: [[5], [5]]) {
      tape, x, p in
      tape.layerNorm(
        x[0], scale: tape.use(p[0]), shift: tape.use(p[1]), scaleOffset: 0, epsilon: 1e-3)
    }
    #expect(check.firstProblem() == nil)
  }

  @Test(arguments: [nil, 0, 2, 3])
  func `a head norm has gradients with any number of rotated tokens`(rotated: Int?) {
    let table = rotated.map { count in
      RotaryTable<Double>(
        tokenCount: count, cosines: (0..<(count * 2)).map { 0.3 + 0.1 * Double($0) },
        sines: (0..<(count * 2)).map { 0.7 - 0.2 * Double($0) })
    }
    let check = GradientCheck(inputShapes: [[2, 3, 8]], parameterShapes: [[4]]) { tape, x, p in
      tape.headNorm(x[0], gain: p[0], rotation: table, headCount: 2, epsilon: 1e-6)
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `rotation along a dimension that is moved inwards has its gradient`() {
    let angles = (0..<6).map { 0.4 * Double($0 + 1) }
    let table = RotaryTable<Double>(
      tokenCount: 3, cosines: angles.map { 1 - 0.1 * $0 }, sines: angles.map { 0.5 + $0 })
    // The second term meets a gradient that is there already.
    let check = GradientCheck(inputShapes: [[2, 3, 5, 8]]) { tape, x, _ in
      tape.add(
        tape.rotatedAndTransposed(x[0], by: table),
        tape.multiply(
          tape.rotatedAndTransposed(x[0], by: table), tape.permuted(x[0], axes: [0, 2, 1, 3])))
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `nothing is rotated into nothing`() {
    let tape = Tape<Double>(arena: Arena(), role: .base)
    let table = RotaryTable<Double>(
      tokenCount: 3, cosines: Array(repeating: 1, count: 6), sines: Array(repeating: 0, count: 6))
    let x = tape.input(Tensor(Buffer(zeroed: 0), shape: [2, 3, 0, 8]))
    let rotated = tape.rotatedAndTransposed(x, by: table)
    #expect(rotated.shape == [2, 0, 3, 8])
    tape.backward([(rotated, Tensor(Buffer(zeroed: 0), shape: [2, 0, 3, 8]))])
    #expect(tape.gradient(of: x)?.shape == [2, 3, 0, 8])
  }

  @Test func `every vector goes to its transposed place, turned by its position`() {
    let arena = Arena()
    let shape = [2, 3, 2, 4]
    let x = Tensor<Double>(
      (0..<48).map(Double.init), shape: shape, in: arena, booking: Booking(.common, .activations))
    // Position 0 stays, 1 turns by a right angle, 2 by two.
    let table = RotaryTable<Double>(
      tokenCount: 3, cosines: [1, 1, 0, 0, -1, -1], sines: [0, 0, 1, 1, 0, 0])
    let tape = Tape<Double>(arena: arena, role: .common, isRecording: false)
    let y = tape.rotatedAndTransposed(Value(constant: x), by: table)
    #expect(y.shape == [2, 2, 3, 4])
    for b in 0..<2 {
      for f in 0..<3 {
        for l in 0..<2 {
          let (from, to) = (((b * 3 + f) * 2 + l) * 4, ((b * 2 + l) * 3 + f) * 4)
          let v = x.buffer[from..<(from + 4)].array
          let expected = [v, [-v[1], v[0], -v[3], v[2]], v.map { -$0 }][f]
          #expect(y.tensor.buffer[to..<(to + 4)].array == expected, "\(b), \(f), \(l)")
        }
      }
    }
  }

  @Test func `a gated residual has gradients of input, gate and branch`() {
    let check = GradientCheck(inputShapes: [[2, 3, 5], [2, 5], [2, 3, 5]]) { tape, x, _ in
      tape.gatedResidual(x[0], gate: x[1], x[2])
    }
    #expect(check.firstProblem() == nil)
  }
}

struct AttentionTests {
  static let masks: [AttentionMask?] = [
    nil,
    AttentionMask(visibleKeys: [1, 1, 0, 1, 1, 0, 0, 0]),
    AttentionMask(visibleKeys: [1, 0, 1, 1, 1, 1, 0, 0], isolatedQueries: [0, 1, 0, 1, 1, 0]),
  ]

  @Test(arguments: masks.indices)
  func `attention has gradients under every kind of mask`(index: Int) {
    let check = GradientCheck(inputShapes: [[2, 3, 6], [2, 4, 6], [2, 4, 6]]) { tape, x, _ in
      tape.attention(
        query: x[0], key: x[1], value: x[2], headCount: 3, mask: Self.masks[index])
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `attention of one value with itself sums three gradients`() {
    let check = GradientCheck(inputShapes: [[2, 3, 4]]) { tape, x, _ in
      tape.attention(query: x[0], key: x[0], value: x[0], headCount: 2)
    }
    #expect(check.firstProblem() == nil)
  }

  /// Keys may be those of several ranks, of which one has no query. Memory held something else before.
  @Test func `without a query the gradients of keys and values are zero`() {
    let arena = Arena()
    func tensor(_ shape: [Int], _ element: Float) -> Tensor<Float> {
      let tensor = Tensor<Float>(
        shape: shape, in: arena, booking: Booking(.base, .activations))
      tensor.buffer.fill(with: element)
      return tensor
    }
    let tape = Tape<Float>(arena: arena, role: .base)
    let query = tape.input(tensor([2, 0, 4], 0))
    let (key, value) = (tape.input(tensor([2, 3, 4], 1)), tape.input(tensor([2, 3, 4], 2)))
    let attended = tape.attention(query: query, key: key, value: value, headCount: 2)
    #expect(attended.shape == [2, 0, 4])
    for used in (0..<8).map({ _ in tensor([2, 3, 4], .nan) }) { #expect(used.count == 24) }
    tape.backward([(attended, tensor([2, 0, 4], 0))])
    for input in [key, value] {
      #expect(tape.gradient(of: input)?.array == Array(repeating: 0, count: 24))
    }
  }

  @Test func `attention with a constant key has gradients of the others`() {
    let check = GradientCheck(inputShapes: [[1, 3, 4], [1, 2, 4], [1, 2, 4]]) { tape, x, _ in
      let attended = tape.attention(
        query: x[0], key: Value(constant: Self.fixedKey), value: x[2], headCount: 2)
      return tape.add(
        attended, tape.concatenate([x[1], tape.slice(x[1], along: 1, 0..<1)], along: 1))
    }
    #expect(check.firstProblem() == nil)
  }

  static var fixedKey: Tensor<Double> {
    Tensor(Buffer((0..<8).map { Double($0) / 5 - 0.6 }), shape: [1, 2, 4])
  }
}

struct ElementwiseTests {
  @Test(arguments: [Activation.geluTanh, .silu, .softplus, .pseudoHuber(c: 0.3)])
  func `an activation has its derivative`(activation: Activation) {
    let check = GradientCheck(inputShapes: [[3, 7]]) { tape, x, _ in
      tape.apply(activation, to: x[0])
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `combinations and products have gradients of both sides`() {
    let check = GradientCheck(inputShapes: [[2, 3], [2, 3]]) { tape, x, _ in
      let sum = tape.combine(1.5, x[0], -0.5, x[1])
      return tape.add(tape.multiply(sum, x[1]), tape.multiply(x[0], x[0]))
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `a combination per sample has its own weights`() {
    let check = GradientCheck(inputShapes: [[3, 2, 2], [3, 2, 2]]) { tape, x, _ in
      tape.combineSamples([0.25, 0, -1], x[0], [1, 2, 0.5], x[1])
    }
    #expect(check.firstProblem() == nil)
  }
}

struct ShapeTests {
  @Test(arguments: [0, 1, 2])
  func `joining and cutting have gradients along every dimension`(dimension: Int) {
    var other = [2, 3, 4]
    other[dimension] = 2
    let check = GradientCheck(inputShapes: [[2, 3, 4], other]) { tape, x, _ in
      let joined = tape.concatenate([x[0], x[1], x[0]], along: dimension)
      return tape.slice(joined, along: dimension, 1..<(joined.shape[dimension] - 1))
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `an empty cut adds nothing to the gradient`() {
    let check = GradientCheck(inputShapes: [[2, 3]]) { tape, x, _ in
      tape.concatenate([tape.slice(x[0], along: 1, 2..<2), x[0]], along: 1)
    }
    #expect(check.firstProblem() == nil)
  }

  /// An exchange between ranks may be what it came from.
  @Test func `what an empty cut came from is differentiated, with zero`() {
    let arena = Arena()
    let tape = Tape<Double>(arena: arena, role: .base)
    func tensor(_ shape: [Int]) -> Tensor<Double> {
      Tensor(shape: shape, in: arena, booking: Booking(.base, .activations), zeroed: true)
    }
    let input = tape.input(tensor([2, 3]))
    var seen: [Double]?
    let copy = tape.record(tensor([2, 3]), from: [input]) { outputGradient, _ in
      seen = outputGradient.array
    }
    let cut = tape.slice(copy, along: 1, 1..<1)
    let joined = tape.concatenate([cut, tape.slice(copy, along: 1, 3..<3)], along: 1)
    tape.backward([(joined, tensor([2, 0]))])
    #expect(seen == Array(repeating: 0, count: 6))
  }

  @Test func `chunks have gradients in their places`() {
    let check = GradientCheck(inputShapes: [[2, 9]]) { tape, x, _ in
      let parts = tape.chunks(x[0], count: 3)
      return tape.multiply(parts[0], tape.multiply(parts[2], parts[0]))
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `repetition sums its gradients`() {
    let check = GradientCheck(inputShapes: [[2, 3]]) { tape, x, _ in
      tape.repeated(x[0], count: 4)
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `permutation moves gradients back`() {
    for axes in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
      let check = GradientCheck(inputShapes: [[2, 3, 1, 4]]) { tape, x, _ in
        tape.permuted(x[0], axes: axes)
      }
      #expect(check.firstProblem() == nil, "\(axes)")
    }
  }

  @Test func `a reshaped value has the gradient of the original`() {
    let check = GradientCheck(inputShapes: [[2, 6]]) { tape, x, _ in
      tape.multiply(x[0].reshaped([3, 4]), tape.permuted(x[0].reshaped([4, 3]), axes: [1, 0]))
    }
    #expect(check.firstProblem() == nil)
  }

  @Test func `a weighted sum of tokens spreads its gradient`() {
    let check = GradientCheck(inputShapes: [[2, 3, 4]]) { tape, x, _ in
      tape.weightedTokenSum(x[0], weights: [0.5, 0, 0.25, -1, 2, 3])
    }
    #expect(check.firstProblem() == nil)
  }
}
