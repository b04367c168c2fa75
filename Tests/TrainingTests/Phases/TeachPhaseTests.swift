import Testing

@testable import Training

@Suite struct TeachPhaseTests {
  func rates(steps: Int, warmup: Int) -> [Double] {
    var options = RunConfiguration.Teach()
    (options.steps, options.warmupSteps, options.learningRate) = (steps, warmup, 2)
    return (0..<steps).map { TeachPhase.learningRate(step: $0, options) }
  }

  @Test func `the learning rate rises along a line and falls along half a cosine`() {
    let rates = rates(steps: 12, warmup: 4)
    #expect(Array(rates[..<4]) == [0.5, 1, 1.5, 2])
    #expect(rates[4] == 2)
    // Half of the way down: cos(π/2) is 6e-17 instead of 0.
    #expect(abs(rates[8] - 1) < 1e-15)
    #expect(zip(rates[4...], rates[5...]).allSatisfy { $0 > $1 })
    #expect(rates.allSatisfy { $0 > 0 })
  }

  @Test func `a warm-up may be absent, or longer than the phase`() {
    #expect(rates(steps: 3, warmup: 0)[0] == 2)
    #expect(rates(steps: 3, warmup: 9) == [2.0 / 3, 4.0 / 3, 2])
    #expect(rates(steps: 1, warmup: 0) == [2])
  }
}
