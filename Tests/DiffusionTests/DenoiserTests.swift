import Autodiff
import Diffusion
import Tensors
import TestSupport
import Testing

struct DenoiserTests {
  @Test func `without guidance the unconditional network is not run and no bit changes`() {
    let bench = Bench<Double>()
    let conditional = SpyDenoiser(GaussianDenoiser(mean: 1, deviation: 2))
    let unconditional = SpyDenoiser(GaussianDenoiser())
    let guided = GuidedDenoiser<Double>(
      conditional: conditional, unconditional: unconditional, scale: 1)
    let noisy = Value(constant: bench.normals([2, 3], 0))
    let tape = bench.tape()
    let velocity = guided.velocity(of: noisy, times: [0.25, 0.5], on: tape)
    #expect(conditional.calls.count == 1 && unconditional.calls.isEmpty)
    #expect(
      velocity.tensor.array
        == conditional.wrapped.velocity(of: noisy, times: [0.25, 0.5], on: tape).tensor.array)
  }

  @Test func `guidance runs both networks at the same point and extrapolates`() {
    let bench = Bench<Double>()
    let conditional = SpyDenoiser(GaussianDenoiser(mean: 1, deviation: 2))
    let unconditional = SpyDenoiser(GaussianDenoiser(mean: -0.5))
    let noisy = Value(constant: bench.normals([2, 3], 0))
    let times = [0.25, 0.5]
    let tape = bench.tape()
    let c = conditional.wrapped.velocity(of: noisy, times: times, on: tape).tensor.array
    let u = unconditional.wrapped.velocity(of: noisy, times: times, on: tape).tensor.array
    for scale in [0, 0.5, 3.5, 8] {
      let guided = GuidedDenoiser<Double>(
        conditional: conditional, unconditional: unconditional, scale: scale)
      let velocity = guided.velocity(of: noisy, times: times, on: tape).tensor.array
      // The same sum in another order: some roundings of numbers below 50.
      #expect(
        difference(velocity, zip(c, u).map { $1 + scale * ($0 - $1) }, absolute: 1e-13) == nil)
    }
    #expect(conditional.calls.count == 4 && unconditional.calls.count == 4)
    for call in conditional.calls + unconditional.calls {
      #expect(call.noisy == noisy.tensor.array && call.times == times)
    }
  }

  @Test func `guidance between two means is the exact denoiser of the tilted mean`() {
    let bench = Bench<Double>()
    let (conditional, null) = (1.0, -0.5)
    let noisy = Value(constant: bench.normals([3, 50], 0))
    let times = [0.1, 0.6, 0.98]
    for scale in [0.5, 1, 3.5] {
      let guided = GuidedDenoiser<Double>(
        conditional: GaussianDenoiser(mean: conditional, deviation: 0.8),
        unconditional: GaussianDenoiser(mean: null, deviation: 0.8), scale: scale)
      let tilted = GaussianDenoiser(
        mean: null + scale * (conditional - null), deviation: 0.8)
      let tape = bench.tape()
      #expect(
        difference(
          guided.velocity(of: noisy, times: times, on: tape).tensor.array,
          tilted.velocity(of: noisy, times: times, on: tape).tensor.array, absolute: 1e-13) == nil)
    }
  }
}
