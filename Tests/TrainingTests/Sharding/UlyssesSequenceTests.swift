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
}
