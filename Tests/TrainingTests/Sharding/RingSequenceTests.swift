import TestSupport
import Testing

@testable import Training

struct RingSequenceTests {
  @Test(arguments: [1, 2, 3, 4, 6], [false, true])
  func `outputs and gradients are those of one rank`(degree: Int, recompute: Bool) throws {
    for example in SharedTokensExample.all(recompute: recompute) {
      try example.expectAgreement(ring: degree, sp: 1)
    }
  }

  @Test(arguments: [(2, 2), (2, 3), (3, 2)], [false, true])
  func `a ring of groups that exchange heads computes what one rank does`(
    degrees: (ring: Int, sp: Int), recompute: Bool
  ) throws {
    for example in SharedTokensExample.all(recompute: recompute) {
      try example.expectAgreement(ring: degrees.ring, sp: degrees.sp)
    }
  }

  /// More ranks than tokens of the text, and than heads; some have no token at all.
  @Test func `a ring may be longer than the tokens suffice`() throws {
    let example = SharedTokensExample(
      sampleCount: 1, textCount: 2, masked: true, recompute: false, latentShape: [3, 1, 4, 4])
    try example.expectAgreement(ring: 7, sp: 1)
  }

  /// Whole training steps in fp32: the losses and weights of one rank up to rounding.
  @Test(arguments: [(2, 2, 1), (4, 2, 1), (4, 4, 1), (4, 2, 2), (8, 2, 2), (12, 12, 1)])
  func `a run with a ring follows the run of one rank`(ranks: Int, ring: Int, sp: Int) throws {
    try TrainedRun(ranks: ranks, ring: ring, sp: sp)
      .expectAgreement(with: TrainedRun(ranks: 1))
  }

  @Test func `two runs of a ring have the same bits`() throws {
    let runs = try (0..<2).map { _ in
      try TrainedRun(ranks: 3, ring: 3) { $0.compute.precision = .bf16 }
    }
    #expect(runs[0].weights == runs[1].weights)
  }
}
