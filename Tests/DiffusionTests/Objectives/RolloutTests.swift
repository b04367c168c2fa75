import Autodiff
import DenseKernels
import Diffusion
import Tensors
import TestSupport
import Testing

struct RolloutTests {
  private let bench = Bench<Double>()
  private let schedule = SamplingSchedule(stepCount: 4, shift: 5)

  @Test func `a rollout from data starts at the noised truth`() {
    let (noise, truth) = (bench.normals([2, 5], 0), bench.normals([2, 5], 1))
    for depth in 0..<4 {
      let spy = SpyDenoiser(GaussianDenoiser(mean: 1, deviation: 0.5))
      let tape = bench.tape()
      let x = Rollout(schedule: schedule, source: .data).generate(
        depth: depth, noise: noise, truth: truth, generator: spy, on: tape
      ) { _ in preconditionFailure("a rollout from data draws no more noise") }
      #expect(spy.calls.count == 1 && spy.calls[0].isRecording)
      let tau = schedule.times[depth]
      #expect(spy.calls[0].times == [tau, tau])
      let y = FlowMatching.noised(
        truth, noise: noise, times: [tau, tau], in: bench.arena, booking: bench.booking)
      #expect(spy.calls[0].noisy == y.array)
      let v = spy.wrapped.velocity(of: Value(constant: y), times: [tau, tau], on: tape)
      #expect(
        difference(
          x.tensor.array, zip(y.array, v.tensor.array).map { $0 - tau * $1 }, absolute: 1e-15)
          == nil)
    }
  }

  @Test func `a simulated rollout starts where its own re-noised steps lead`() {
    let noise = bench.normals([2, 5], 0)
    for depth in 0..<4 {
      let spy = SpyDenoiser(GaussianDenoiser(mean: 1, deviation: 0.5))
      var drawn: [Int] = []
      _ = Rollout(schedule: schedule, source: .simulate).generate(
        depth: depth, noise: noise, truth: nil, generator: spy, on: bench.tape()
      ) { step in
        drawn.append(step)
        return bench.normals([2, 5], 100 + step)
      }
      #expect(drawn == Array(0..<depth))
      #expect(spy.calls.map { $0.times[0] } == Array(schedule.times[...depth]))
      // Only the last step has a gradient.
      #expect(spy.calls.map(\.isRecording) == Array(repeating: false, count: depth) + [true])
      var state = noise.array
      for step in 0..<depth {
        let v = spy.wrapped.velocity(
          of: Value(constant: bench.tensor(state, [2, 5])),
          times: Array(repeating: schedule.times[step], count: 2), on: bench.tape()
        ).tensor.array
        let (t, next) = (schedule.times[step], schedule.times[step + 1])
        let fresh = bench.normals([2, 5], 100 + step).array
        state = (0..<10).map { (1 - next) * (state[$0] - t * v[$0]) + next * fresh[$0] }
      }
      #expect(difference(spy.calls[depth].noisy, state, absolute: 1e-14) == nil)
    }
  }

  @Test(arguments: RolloutSource.allCases)
  func `the first step starts from the noise itself, bit by bit`(source: RolloutSource) {
    let (noise, truth) = (bench.normals([2, 5], 0), bench.normals([2, 5], 1))
    truth.buffer.fill(with: .nan)
    let spy = SpyDenoiser(GaussianDenoiser())
    _ = Rollout(schedule: schedule, source: source).generate(
      depth: 0, noise: noise, truth: truth, generator: spy, on: bench.tape()
    ) { _ in preconditionFailure("nothing is simulated before the first step") }
    #expect(spy.calls.count == 1)
    #expect(spy.calls[0].noisy == noise.array)
    #expect(spy.calls[0].times == [1, 1])
  }

  @Test(arguments: RolloutSource.allCases)
  func `only the last step reaches the generator's gradient`(source: RolloutSource) {
    let set = ParameterSet<Double>(
      [ParameterSpecification("W", [3, 3], .normal(deviation: 0.5))], in: bench.arena,
      role: .generator)
    set.initialize(seed: 6)
    let gradients = Buffer<Double>(zeroed: set.layout.count)
    set.bindGradients(to: gradients)
    let spy = SpyDenoiser(LinearDenoiser(matrix: set["W"]))
    let tape = bench.tape()
    let x = Rollout(schedule: schedule, source: source).generate(
      depth: 2, noise: bench.normals([2, 3], 0), truth: bench.normals([2, 3], 1),
      generator: spy, on: tape
    ) { bench.normals([2, 3], 100 + $0) }
    let seed = bench.normals([2, 3], 2)
    tape.backward([(x, seed)])
    // x = y − τ y Wᵀ with y a constant: ∂⟨x, s⟩/∂W = −τ sᵀ y.
    let y = spy.calls[spy.calls.count - 1].noisy
    let tau = schedule.times[2]
    let expected = (0..<9).map { index -> Double in
      let (row, column) = (index / 3, index % 3)
      let sum = seed.array[row] * y[column] + seed.array[3 + row] * y[3 + column]
      return -tau * sum
    }
    #expect(
      difference(set["W"].gradient?.array ?? [], expected, absolute: 1e-14) == nil)
  }
}
