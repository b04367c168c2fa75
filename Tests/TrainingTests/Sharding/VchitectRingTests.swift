// Vchitect-2.0 with the tokens of every frame cut over a ring: keys and values of the spatial branch go round, the
// temporal branch has its tokens in all frames, the text of first frames is gathered for the cross branch.

import Autodiff
import DenseKernels
import Exchange
import Models
import ProcessMesh
import Tensors
import TestSupport
import Testing

@testable import Training

struct VchitectRingTests {
  @Test(arguments: [1, 2, 3, 4, 6], [false, true])
  func `outputs and gradients are those of one rank`(degree: Int, recompute: Bool) throws {
    for example in VchitectTokens.all(recompute: recompute, adapted: true) {
      try example.expectAgreement(ring: degree, sp: 1)
    }
  }

  @Test(arguments: [(2, 2), (2, 3), (3, 2)], SequencePlan.allCases)
  func `a ring of groups that exchange heads computes what one rank does`(
    degrees: (ring: Int, sp: Int), plan: SequencePlan
  ) throws {
    for example in VchitectTokens.all(recompute: false, adapted: true) {
      try example.expectAgreement(ring: degrees.ring, sp: degrees.sp, plan: plan)
    }
    for example in VchitectTokens.all(recompute: true) {
      try example.expectAgreement(ring: degrees.ring, sp: degrees.sp, plan: plan)
    }
  }

  /// Weights are cut inside of pieces.
  @Test(arguments: [(2, 1, 2), (3, 1, 2), (2, 2, 2), (2, 3, 2)], SequencePlan.allCases)
  func `cut weights go with a ring and with exchanged heads`(
    degrees: (ring: Int, sp: Int, tp: Int), plan: SequencePlan
  ) throws {
    for example in VchitectTokens.all(recompute: plan == .all, adapted: true) {
      try example.expectAgreement(
        ring: degrees.ring, sp: degrees.sp, tp: degrees.tp, plan: plan)
    }
  }

  /// More ranks than tokens of a frame, than those of the text, and than heads; some have no token at all.
  @Test(arguments: VchitectConfiguration.BlockVariant.allCases)
  func `a ring may be longer than the tokens suffice`(
    variant: VchitectConfiguration.BlockVariant
  ) throws {
    try VchitectTokens(variant, heads: 2, frameCount: 2, textCount: 3, size: [4, 4])
      .expectAgreement(ring: 7, sp: 1)
  }

  /// A rank sends the keys and values of all ranks but the next one's a block, and its text of first frames to all;
  /// the velocity is gathered at the end.
  @Test(arguments: VchitectConfiguration.BlockVariant.allCases, [2, 4])
  func `a forward pass sends as many bytes as its exchanges have elements`(
    variant: VchitectConfiguration.BlockVariant, degree: Int
  ) throws {
    let (clips, frames, text, width, p) = (2, 3, 8, 24, degree)
    let example = VchitectTokens(
      variant, clipCount: clips, frameCount: frames, textCount: text, size: [4, 8])
    let image = example.tokensPerFrame
    let sent = try InProcessMesh.run(size: degree) { transport in
      let exchange = TokenExchange(transport: transport)
      let arena = Arena()
      var failure: (any Error)?
      let sequence = RingSequence<Double>(exchange) { body in
        do { try body() } catch { failure = error }
      }
      _ = example.forward(
        example.parameters(in: arena),
        on: Tape(arena: arena, role: .base, isRecording: false), in: arena, sequence: sequence)
      if let failure { throw failure }
      return exchange.statistics[.activations].wireByteCount
    }
    let round = 2 * clips * frames * (image + text) * width * (p - 1) / p
    let shared = variant == .v2 ? 2 * clips * text * width * (p - 1) / p : 0
    let gathered = clips * frames * image * 8 * (p - 1) / p
    for count in sent { #expect(count == 8 * (2 * (round + shared) + gathered)) }
  }

  /// Whole training steps in fp32: the losses and weights of one rank up to rounding.
  @Test(
    arguments: [(2, 2, 1, 1), (4, 2, 1, 1), (3, 3, 1, 1), (8, 2, 2, 1), (8, 2, 2, 2)],
    VchitectConfiguration.BlockVariant.allCases)
  func `a run with a ring follows the run of one rank`(
    layout: (ranks: Int, ring: Int, sp: Int, tp: Int), variant: VchitectConfiguration.BlockVariant
  ) throws {
    func vchitect(_ configuration: inout RunConfiguration) {
      configuration.model.architecture = .vchitect
      configuration.model.variant = variant
      configuration.model.doubleBlocks = 2
      configuration.mesh.sequencePlan = layout.tp > 1 ? .all : .spatial
    }
    try TrainedRun(
      ranks: layout.ranks, ring: layout.ring, sp: layout.sp, tp: layout.tp, vchitect
    ).expectAgreement(with: TrainedRun(ranks: 1, vchitect))
  }

  @Test func `two runs of a ring have the same bits`() throws {
    let runs = try (0..<2).map { _ in
      try TrainedRun(ranks: 3, ring: 3) {
        $0.model.architecture = .vchitect
        $0.model.doubleBlocks = 2
        $0.compute.precision = .bf16
      }
    }
    let isSame = runs[0].weights == runs[1].weights
    #expect(isSame)
  }
}
