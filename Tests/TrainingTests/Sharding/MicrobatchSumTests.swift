import Autodiff
import Basics
import DenseKernels
import MeshLayout
import Tensors
import Testing

@testable import Training

@Suite struct MicrobatchSumTests {
  /// The gradient of one microbatch: numbers of very different size, so that order shows.
  static func gradient(_ microbatch: Int, count: Int) -> [Float] {
    let stream = RandomStream(seed: 5, purpose: .tests, sample: microbatch)
    return (0..<count).map { Float(stream.normal(at: $0)) * (($0 + microbatch) % 7 == 0 ? 1e4 : 1) }
  }

  @Test(arguments: 1...9)
  func `the sum of microbatches is that of the fixed tree`(_ microbatchCount: Int) {
    let arena = Arena()
    let sets = [[3, 5], [40]].map {
      ParameterSet<Float>(
        [ParameterSpecification("a", $0, .zeros)], in: arena, role: .generator)
    }
    var order: [Int] = []
    let sums = MicrobatchSum.gradients(
      of: sets.map { GradientTarget($0) }, over: 2..<(2 + microbatchCount),
      arena: arena
    ) { microbatch in
      order.append(microbatch)
      for set in sets {
        set.contribute(Self.gradient(microbatch, count: set.layout.count), arena: arena)
      }
    }
    #expect(order == Array(2..<(2 + microbatchCount)))
    for (set, sum) in zip(sets, sums) {
      let padding = [Float](repeating: 0, count: set.layout.count - set.layout.parameterCount)
      let operands = order.map {
        Array(
          Self.gradient($0, count: set.layout.count).prefix(set.layout.parameterCount)) + padding
      }
      let expected = treeReduce(operands) { left, right in zip(left, right).map { $0 + $1 } }
      #expect(sum.array == expected)
      #expect(set.gradients == nil, "frozen again after the turn")
    }
  }
}
