import Foundation
import Testing

@testable import Benchmarking

@Test(
  arguments: [
    ([3], 3, 0), ([4, 1, 2], 2, 1.5), ([1, 2, 3, 4], 2.5, 1.2),
    ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 5, 1.6),
  ] as [([Double], Double, Double)])
func `the median of an even number of runs is between the middle two`(
  seconds: [Double], median: Double, spread: Double
) {
  let timing = Timing(seconds)
  #expect(timing.median == median)
  #expect(timing.spread == spread)
  #expect(timing.minimum == seconds.min() && timing.maximum == seconds.max())
  #expect(timing.repeatCount == seconds.count)
}

@Test func `a measurement has one run more than it times`() {
  var runs = 0
  let timing = Timing.measuring(repeats: 3) { runs += 1 }
  #expect(runs == 4 && timing.repeatCount == 3)
  #expect(timing.minimum >= 0)
}

@Test func `a short kernel is timed more often than asked, a long one is not`() {
  #expect(Timing.measuringKernel(repeats: 2) {}.repeatCount == 1_000)
  #expect(
    Timing.measuringKernel(repeats: 2) { Thread.sleep(forTimeInterval: 0.15) }.repeatCount == 2)
}
