// Means over tokens of which others have parts, and gradients that others complete.

import Autodiff
import DenseKernels
import Tensors
import Testing

struct TokenMeanTests {
  private static let blocks = RowSums.blocks(
    RowBlocks(tokenCount: 3, blocks: [[0..<1, 2..<3], [1..<1], [1..<2], []]))

  /// Two samples of two rows of three tokens; each has two tokens elsewhere.
  @Test(arguments: [false, true])
  func `own tokens add their part of the mean of each sample`(inBlocks: Bool) {
    let sums = inBlocks ? Self.blocks : RowSums.whole
    let check = GradientCheck(inputShapes: [[4, 3, 5]]) { tape, x, _ in
      tape.meanPart(of: x[0], sampleCount: 2, tokenCount: 8, sums: sums)
    }
    #expect(check.firstProblem() == nil)
    let arena = Arena()
    let tape = Tape<Double>(arena: arena, role: .base, isRecording: false)
    // Multiples of 1/64: sums are exact.
    let elements: [Double] = (0..<60).map { Double($0 * $0 % 37) / 8 }
    let x = Tensor(elements, shape: [4, 3, 5], in: arena, booking: Booking(.base, .activations))
    func sum(_ sample: Int, _ column: Int) -> Double {
      (0..<6).reduce(0) { $0 + elements[(sample * 6 + $1) * 5 + column] }
    }
    let expected = (0..<10).map { sum($0 / 5, $0 % 5) / 8 }
    let mean = tape.meanPart(
      of: Value(constant: x), sampleCount: 2, tokenCount: 8, sums: sums)
    #expect(mean.shape == [2, 5] && mean.tensor.array == expected)
  }

  @Test func `no token adds nothing, and still has its gradient`() {
    let arena = Arena()
    let tape = Tape<Double>(arena: arena, role: .base)
    let booking = Booking(MemoryRole.base, .activations)
    let x = tape.input(Tensor([], shape: [2, 0, 3], in: arena, booking: booking))
    let mean = tape.meanPart(of: x, sampleCount: 2, tokenCount: 4)
    #expect(mean.tensor.array == [0, 0, 0, 0, 0, 0])
    tape.backward([(mean, mean.tensor)])
    #expect(tape.gradient(of: x)?.count == 0)
  }

  @Test func `a sum of parts hands its gradient to each`() {
    let arena = Arena()
    let tape = Tape<Double>(arena: arena, role: .base)
    func tensor(_ elements: [Double], _ shape: [Int]) -> Tensor<Double> {
      Tensor(elements, shape: shape, in: arena, booking: Booking(.base, .activations))
    }
    let x = tape.input(tensor([1, 2], [1, 2]))
    let sum = tape.completed(x, by: tensor([1, 2, 10, 20, 100, 200], [3, 2]))
    #expect(sum.tensor.array == [111, 222])
    tape.backward([(sum, tensor([3, -5], [1, 2]))])
    #expect(tape.gradient(of: x)?.array == [3, -5])
  }

  @Test(arguments: [false, true])
  func `a gradient is completed whether something has reached it or not`(isReached: Bool) {
    let arena = Arena()
    let tape = Tape<Double>(arena: arena, role: .base)
    func tensor(_ elements: [Double]) -> Tensor<Double> {
      Tensor(elements, shape: [2], in: arena, booking: Booking(.base, .activations))
    }
    var found: [[Double]?] = []
    let x = tape.input(tensor([1, 2]))
    let other = tape.combine(2, x, 1, x)
    let completed = tape.completingGradient(of: other) {
      found.append($0?.array)
      return tensor([10, 20])
    }
    #expect(completed.tensor.array == other.tensor.array)
    let seeds: [(Value<Double>, Tensor<Double>)] =
      isReached ? [(tape.multiply(completed, completed), tensor([1, 1]))] : []
    tape.backward(seeds.map { (value: $0.0, seed: $0.1) })
    #expect(found == [isReached ? [6, 12] : nil])
    #expect(tape.gradient(of: x)?.array == [30, 60])

    let silent = Tape<Double>(arena: arena, role: .base, isRecording: false)
    let constant = silent.completingGradient(of: Value(constant: tensor([1, 2]))) { _ in
      tensor([0, 0])
    }
    #expect(!constant.isTracked)
  }
}
