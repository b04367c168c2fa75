import Autodiff
import Diffusion
import Tensors
import Testing

struct GroundTruthRegressionTests {
  private let bench = Bench<Double>()

  private func term(_ x: [Double], _ truth: [Double], _ shape: [Int]) -> ObjectiveTerm<Double> {
    let tape = bench.tape()
    return GroundTruthRegression().evaluate(
      generated: tape.input(bench.tensor(x, shape)), truth: bench.tensor(truth, shape), on: tape)
  }

  @Test func `the loss is the mean square and the gradient twice the mean residual`() {
    let found = term([1, 2, -3, 0.5], [1, -2, -1, 0], [2, 2])
    // Residuals 0, 4, −2 and 1/2: all exact.
    #expect(found.loss == (16 + 4 + 0.25) / 4)
    #expect(found.gradient.array == [0, 2, -1, 0.25])
  }

  @Test func `a scaled noisy truth rests at the regression coefficient`() {
    // Truth and noise of mean square 1 whose product has mean 0, exactly.
    let (truth, epsilon) = ([1.0, 1, -1, -1], [1.0, -1, 1, -1])
    for tau in [0.625, 5.0 / 6, 0.9375] {
      let y = zip(truth, epsilon).map { (1 - tau) * $0 + tau * $1 }
      let v = (1 - tau) * (1 - tau) + tau * tau
      for a in [0, (1 - tau) / v, 1] {
        let found = term(y.map { a * $0 }, truth, [1, 4])
        let slope = zip(found.gradient.array, y).reduce(0) { $0 + $1.0 * $1.1 }
        // A dozen roundings of numbers below 4.
        #expect(abs(found.loss - (a * a * v - 2 * a * (1 - tau) + 1)) < 1e-14)
        #expect(abs(slope - (2 * a * v - 2 * (1 - tau))) < 1e-14)
      }
      #expect(abs(term(y.map { (1 - tau) / v * $0 }, truth, [1, 4]).loss - tau * tau / v) < 1e-14)
    }
  }

  @Test func `no split of the batch changes a gradient`() {
    let (x, truth) = (bench.normals([4, 3], 0).array, bench.normals([4, 3], 1).array)
    let together = term(x, truth, [4, 3])
    let parts = [0..<6, 6..<12].map { term(Array(x[$0]), Array(truth[$0]), [2, 3]) }
    // 1/12 and 1/6 are a power of two apart, so they round alike, and halving is exact.
    #expect(together.gradient.array == parts.flatMap(\.gradient.array).map { $0 / 2 })
    #expect(abs(together.loss - (parts[0].loss + parts[1].loss) / 2) < 1e-15 * 12 * together.loss)
  }
}
