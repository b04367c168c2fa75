import Exchange
import TestSupport
import Testing

@testable import Training

struct UlyssesSequenceTests {
  @Test(arguments: [1, 2, 3, 6], [false, true])
  func `outputs and gradients are those of one rank`(degree: Int, recompute: Bool) throws {
    for example in SharedTokensExample.all(recompute: recompute) {
      try example.expectAgreement(ring: 1, sp: degree)
    }
  }

  /// Whole training steps in fp32: the losses and weights of one rank up to rounding.
  @Test(arguments: [(2, 2), (4, 2), (4, 4), (8, 2)])
  func `a run with shared tokens follows the run of one rank`(ranks: Int, degree: Int) throws {
    try TrainedRun(ranks: ranks, sp: degree)
      .expectAgreement(with: TrainedRun(ranks: 1))
  }

  /// What travels while something is computed is what would be waited for.
  @Test func `overlap changes no bit`() throws {
    let runs = try ExchangeConfiguration.Overlap.allCases.map { overlap in
      try TrainedRun(ranks: 4, sp: 2) {
        $0.exchange.overlap = overlap
        $0.model.recompute = overlap == .on
      }
    }
    #expect(runs[0].weights == runs[1].weights)
    #expect(runs[0].readings == runs[1].readings)
  }
}
