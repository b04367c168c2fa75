import Autodiff
import Models
import Tensors
import Testing

@testable import Training

@Suite struct NetworksTests {
  /// Whether the first elements of two tensors are the same numbers, scaled.
  private func areScaled(_ a: [Float], _ b: [Float]) -> Bool {
    let ratios = zip(a, b).prefix(8).filter { $1 != 0 }.map { $0 / $1 }
    guard let first = ratios.first, first != 0, ratios.count > 3 else { return false }
    // Equal uniforms scaled by two bounds agree to a few roundings.
    return ratios.allSatisfy { abs($0 - first) <= 1e-5 * abs(first) }
  }

  @Test func `the adapter and the discriminator's head start from numbers of their own`() {
    let networks = Networks(
      TinyRun.configuration().transformer, nullTokenCount: 2, arena: Arena())
    let adapter = networks.addAdapter(rank: 4, alpha: 4, seed: 3)
    let head = networks.addHead(width: 16, seed: 3)
    #expect(areScaled([1, 2, 3, 4], [2, 4, 6, 8]))
    var isRandom = false
    for own in head.parameters.parameters {
      let values = own.value.array
      isRandom = isRandom || Set(values).count > 3
      for other in adapter.parameters.parameters {
        #expect(!areScaled(values, other.value.array), "\(own.name), \(other.name)")
      }
    }
    #expect(isRandom)
  }
}
