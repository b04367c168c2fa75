import DenseKernels
import Foundation
import TestSupport
import Testing

struct AdamWTests {
  private struct State {
    let parameters: Buffer<Float>
    let first: Buffer<Float>
    let second: Buffer<Float>
    let ema: Buffer<Float>

    init(count: Int) {
      parameters = normals(count, 1)
      (first, second) = (Buffer(zeroed: count), Buffer(zeroed: count))
      ema = Buffer(parameters.array)
    }

    var arrays: [[Float]] { [parameters.array, first.array, second.array, ema.array] }

    func update(_ gradients: Buffer<Float>, _ range: Range<Int>, _ step: AdamW.Step) {
      AdamW.update(
        parameters: parameters[range], gradients: gradients[range], firstMoment: first[range],
        secondMoment: second[range], ema: ema[range], step: step)
    }
  }

  private func step(_ number: Int) -> AdamW.Step {
    var step = AdamW.Step(number: number, learningRate: 0.01)
    step.weightDecay = 0.1
    step.gradientScale = 0.5
    step.emaDecay = 0.75
    return step
  }

  /// The definition in Float64; each step rounds a few times, at magnitudes below 8.
  @Test(arguments: [1, 17, 65])
  func `three steps agree with the definition`(count: Int) {
    let state = State(count: count)
    var p = state.parameters.array.map(Double.init)
    var (m, v, ema) = (
      [Double](repeating: 0, count: count), [Double](repeating: 0, count: count), p
    )
    for number in 1...3 {
      let gradients: Buffer<Float> = normals(count, 10 + number)
      state.update(gradients, 0..<count, step(number))
      for i in 0..<count {
        let g = 0.5 * Double(gradients[i])
        m[i] = 0.9 * m[i] + 0.1 * g
        v[i] = 0.999 * v[i] + 0.001 * g * g
        let (t1, t2) = (1 - pow(0.9, Double(number)), 1 - pow(0.999, Double(number)))
        p[i] -= 0.01 * 0.1 * p[i]
        p[i] -= 0.01 * (m[i] / t1) / ((v[i] / t2).squareRoot() + 1e-8)
        ema[i] = 0.75 * ema[i] + 0.25 * p[i]
      }
    }
    for (actual, expected) in zip(state.arrays, [p, m, v, ema]) {
      // 1 − β₂ in Float32 is off by 6e-8 / 1e-3: 5e-4 ε-free relative error in v, half of it in √v,
      // and it cancels in none; so relative 1e-4 for v, and lr · 1e-4 for the parameters.
      #expect(
        difference(
          actual.map(Double.init), expected, absolute: 3e-6, relative: 1e-4) == nil)
    }
  }

  @Test func `the first step moves every parameter by the learning rate against its gradient`() {
    let (p, g) = (Buffer<Float>(zeroed: 33), Buffer((0..<33).map { Float($0 - 16) * 0.3 }))
    AdamW.update(
      parameters: p, gradients: g, firstMoment: Buffer(zeroed: 33),
      secondMoment: Buffer(zeroed: 33),
      ema: nil, step: AdamW.Step(number: 1, learningRate: 0.125))
    for i in 0..<33 where i != 16 {
      #expect(abs(p[i] + (g[i] > 0 ? 0.125 : -0.125)) < 0.125 * 1e-4)
    }
    #expect(p[16] == 0)
  }

  @Test func `any split of a range gives equal bits`() {
    let count = 1000
    let gradients: Buffer<Float> = normals(count, 5)
    let whole = State(count: count)
    for number in 1...2 { whole.update(gradients, 0..<count, step(number)) }
    for cuts in [[1, 2, 3], [16, 500], [7, 333, 999], Array(1..<count)] {
      let split = State(count: count)
      for number in 1...2 {
        for (low, high) in zip([0] + cuts, cuts + [count]) {
          split.update(gradients, low..<high, step(number))
        }
      }
      #expect(split.arrays == whole.arrays, "\(cuts.prefix(3))")
    }
  }

  @Test func `without an average the parameters are the same`() {
    let (with, without) = (State(count: 65), State(count: 65))
    let gradients: Buffer<Float> = normals(65, 5)
    with.update(gradients, 0..<65, step(1))
    AdamW.update(
      parameters: without.parameters, gradients: gradients, firstMoment: without.first,
      secondMoment: without.second, ema: nil, step: step(1))
    #expect(with.arrays.prefix(3) == without.arrays.prefix(3))
  }
}
