import Autodiff
import DenseKernels
import Diffusion
import Foundation
import Tensors
import TestSupport
import Testing

struct AdversarialTests {
  private let bench = Bench<Double>()
  private let objective = AdversarialObjective()

  @Test func `an undecided discriminator has the losses of the specification`() {
    let tape = bench.tape()
    let zeros = Value(constant: bench.tensor([0, 0, 0], [3]))
    let terms = objective.discriminator(fakeLogits: zeros, realLogits: zeros, on: tape)
    #expect(terms.count == 2)
    #expect(abs(terms.reduce(0) { $0 + $1.loss } - 2 * log(2)) < 1e-15)
    #expect(abs(objective.generator(logits: zeros, on: tape).loss - log(2)) < 1e-15)
    // Half a logit each way, a third for the mean.
    #expect(terms[0].gradient.array == Array(repeating: 0.5 / 3, count: 3))
    #expect(terms[1].gradient.array == Array(repeating: -0.5 / 3, count: 3))
  }

  @Test func `between two Gaussians of one spread the optimal logit is linear`() {
    let (realMean, fakeMean, s, count) = (0.5, -0.3, 0.8, 400_000)
    let real = bench.normals([count], 0).array.map { realMean + s * $0 }
    let fake = bench.normals([count], 1).array.map { fakeMean + s * $0 }
    let slope = (realMean - fakeMean) / (s * s)
    let offset = (fakeMean * fakeMean - realMean * realMean) / (2 * s * s)
    /// Gradient of L_D in slope and offset, one draw of each kind together.
    func gradients(_ slope: Double) -> (slope: Estimate, offset: Estimate) {
      func logits(_ x: [Double]) -> Value<Double> {
        Value(constant: bench.tensor(x.map { slope * $0 + offset }, [count]))
      }
      let terms = objective.discriminator(
        fakeLogits: logits(fake), realLogits: logits(real), on: bench.tape())
      let (f, r) = (terms[0].gradient.array, terms[1].gradient.array)
      let scale = Double(count)
      return (
        Estimate((0..<count).map { scale * (f[$0] * fake[$0] + r[$0] * real[$0]) }),
        Estimate((0..<count).map { scale * (f[$0] + r[$0]) })
      )
    }
    let optimum = gradients(slope)
    #expect(optimum.slope.agrees(with: 0) && optimum.offset.agrees(with: 0))
    let (below, above) = (gradients(slope - 0.1).slope, gradients(slope + 0.1).slope)
    #expect(below.mean < -8 * below.standardError)
    #expect(above.mean > 8 * above.standardError)
  }

  @Test func `gradients are those of differences and the generator wants to pass for real`() {
    let fake = bench.normals([4], 0)
    let real = bench.normals([4], 1)
    func losses() -> [ObjectiveTerm<Double>] {
      let (f, r) = (Value(constant: fake), Value(constant: real))
      return objective.discriminator(fakeLogits: f, realLogits: r, on: bench.tape())
        + [objective.generator(logits: f, on: bench.tape())]
    }
    let terms = losses()
    for (term, tensor) in [(0, fake), (1, real), (2, fake)] {
      let gradient = terms[term].gradient.array
      for index in 0..<4 {
        let kept = tensor.buffer[index]
        tensor.buffer[index] = kept + 1e-5
        let above = losses()[term].loss
        tensor.buffer[index] = kept - 1e-5
        let below = losses()[term].loss
        tensor.buffer[index] = kept
        // Step 1e-5: truncation and rounding are both near 1e-11.
        #expect(abs((above - below) / 2e-5 - gradient[index]) < 1e-9)
      }
    }
    #expect(terms[2].gradient.array.allSatisfy { $0 < 0 })
  }

  @Test func `extreme logits neither overflow nor lose their slope`() {
    let logits = Value(constant: bench.tensor([1_000, -1_000], [2]))
    let terms = objective.discriminator(fakeLogits: logits, realLogits: logits, on: bench.tape())
    #expect(terms.map(\.loss) == [500, 500])
    #expect(terms[0].gradient.array == [0.5, 0])
    #expect(terms[1].gradient.array == [0, -0.5])
  }
}
