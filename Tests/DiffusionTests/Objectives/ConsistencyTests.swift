import Autodiff
import Basics
import DenseKernels
import Diffusion
import Tensors
import TestSupport
import Testing

struct ConsistencyTests {
  private let bench = Bench<Double>()

  @Test func `the grid rises from zero to one along the shifted schedule`() {
    let objective = ConsistencyObjective(shift: 17)
    #expect(objective.grid.count == 51)
    #expect(objective.grid.first == 0 && objective.grid.last == 1)
    for (n, t) in objective.grid.enumerated() {
      // The same formula from the other end: two roundings.
      #expect(abs(t - FlowMatching.shifted(Double(n) / 50, by: 17)) < 4e-16)
    }
  }

  @Test func `times are adjacent on the grid and every pair is drawn equally often`() {
    let objective = ConsistencyObjective(gridCount: 5, shift: 3)
    var counts = Array(repeating: 0.0, count: 6)
    for sample in 0..<20_000 {
      let pair = objective.times(
        from: RandomStream(seed: 4, purpose: .tests, sample: sample))
      let n = objective.grid.firstIndex(of: pair.later) ?? 0
      #expect(n >= 1 && pair.earlier == objective.grid[n - 1])
      counts[n] += 1
    }
    // A share of 1/5 has a deviation of √(20000 · 0.16) = 57.
    for count in counts[1...] { #expect(abs(count - 4_000) < 4 * 57) }
  }

  @Test func `the loss is that of a hand computation`() {
    let objective = ConsistencyObjective(gridCount: 4, shift: 1, huberWidth: 0.5)
    let (x, epsilon) = ([1.0, -2], [0.5, 3.0])
    let times: [(later: Double, earlier: Double)] = [(0.75, 0.5), (0.25, 0)]
    let generator = SpyDenoiser(GaussianDenoiser(mean: 1))
    let target = SpyDenoiser(GaussianDenoiser(mean: -1))
    let teacher = SpyDenoiser(GaussianDenoiser(mean: 2))
    let tape = bench.tape()
    let term = objective.evaluate(
      clean: bench.tensor(x, [2, 1]), noise: bench.tensor(epsilon, [2, 1]), times: times,
      generator: generator, target: target, teacher: teacher, on: tape)
    var loss = 0.0
    var gradient: [Double] = []
    for b in 0..<2 {
      let (t, s) = (times[b].later, times[b].earlier)
      /// s = 1: v = −m + ((2t − 1) / (1 − 2t + 2t²)) (x_t − (1 − t) m).
      func v(_ point: Double, _ t: Double, _ m: Double) -> Double {
        -m + (2 * t - 1) / (1 - 2 * t + 2 * t * t) * (point - (1 - t) * m)
      }
      let later = (1 - t) * x[b] + t * epsilon[b]
      let earlier = later + (s - t) * v(later, t, 2)
      let goal = earlier - s * v(earlier, s, -1)
      let d = later - t * v(later, t, 1) - goal
      let root = (d * d + 0.25).squareRoot()
      loss += (root - 0.5) / 2
      gradient.append(d / root / 2)
      #expect(abs(teacher.calls[0].noisy[b] - later) < 1e-15)
      #expect(abs(target.calls[0].noisy[b] - earlier) < 1e-14)
      #expect(generator.calls[0].noisy[b] == teacher.calls[0].noisy[b])
    }
    #expect(abs(term.loss - loss) < 1e-14)
    #expect(difference(term.gradient.array, gradient, absolute: 1e-14) == nil)
    #expect(teacher.calls[0].times == [0.75, 0.25] && target.calls[0].times == [0.5, 0])
    #expect(generator.calls[0].times == [0.75, 0.25])
    #expect(generator.calls[0].isRecording)
    #expect(!teacher.calls[0].isRecording && !target.calls[0].isRecording)
  }

  @Test func `at time zero the target is the sample itself`() {
    let objective = ConsistencyObjective(shift: 5)
    func loss(_ target: GaussianDenoiser) -> Double {
      objective.evaluate(
        clean: bench.normals([1, 4], 0), noise: bench.normals([1, 4], 1),
        times: [(objective.grid[1], 0)], generator: GaussianDenoiser(), target: target,
        teacher: GaussianDenoiser(deviation: 2), on: bench.tape()
      ).loss
    }
    #expect(loss(GaussianDenoiser(mean: 5)) == loss(GaussianDenoiser(mean: -7, deviation: 3)))
  }

  @Test func `the gradient reaches the generator alone and is that of differences`() {
    let objective = ConsistencyObjective(shift: 5, huberWidth: 1e-1)
    func network(_ seed: UInt64) -> ParameterSet<Double> {
      let set = ParameterSet<Double>(
        [ParameterSpecification("W", [3, 3], .normal(deviation: 0.5))], in: bench.arena,
        role: .generator)
      set.initialize(seed: seed)
      return set
    }
    let (generator, target, teacher) = (network(1), network(2), network(3))
    let sets = [generator, target, teacher]
    let gradients = sets.map { Buffer<Double>(zeroed: $0.layout.count) }
    zip(sets, gradients).forEach { $0.bindGradients(to: $1) }
    func term(_ tape: Tape<Double>) -> ObjectiveTerm<Double> {
      objective.evaluate(
        clean: bench.normals([2, 3], 0), noise: bench.normals([2, 3], 1),
        times: [
          (objective.grid[30], objective.grid[29]), (objective.grid[1], objective.grid[0]),
        ],
        generator: LinearDenoiser(matrix: generator["W"]),
        target: LinearDenoiser(matrix: target["W"]),
        teacher: LinearDenoiser(matrix: teacher["W"]), on: tape)
    }
    let tape = bench.tape()
    ObjectiveTerm.backward([(1, term(tape))], on: tape)
    #expect(gradients[1].array.allSatisfy { $0 == 0 })
    #expect(gradients[2].array.allSatisfy { $0 == 0 })
    let weights = generator["W"].value.buffer
    for index in 0..<9 {
      let kept = weights[index]
      weights[index] = kept + 1e-5
      let above = term(bench.tape()).loss
      weights[index] = kept - 1e-5
      let below = term(bench.tape()).loss
      weights[index] = kept
      // Curvature is at most 1/c = 10 per element: h² f‴ stays near 1e-8.
      #expect(abs((above - below) / 2e-5 - gradients[0][index]) < 1e-7)
    }
  }
}
