// Vchitect-2.0 with the weights of its blocks cut among ranks: the branches on own heads, their shared outputs summed
// by tokens, the context's by columns. Both forms, alone and with tokens that are shared besides.

import Autodiff
import DenseKernels
import Exchange
import MeshLayout
import Models
import ProcessMesh
import Tensors
import TestSupport
import Testing

@testable import Training

struct VchitectTensorTests {
  /// Uneven tokens, fewer than ranks, one frame, an adapter.
  @Test(arguments: [1, 2, 3, 4, 6], [false, true])
  func `outputs and gradients are those of whole weights`(degree: Int, recompute: Bool) throws {
    for adapted in [false, true] {
      for example in VchitectTokens.all(recompute: recompute, adapted: adapted) {
        try example.expectAgreement(ring: 1, sp: 1, tp: degree)
      }
    }
  }

  /// The text of the released model, and its heads.
  @Test func `weights cut in eight agree for a long text too`() throws {
    try VchitectTokens(heads: 24, frameCount: 2, textCount: 333, adapted: true)
      .expectAgreement(ring: 1, sp: 1, tp: 8)
  }

  /// The group's tokens are a piece of every frame, its heads a part of all.
  @Test(arguments: [(2, 2), (3, 2), (2, 3)], SequencePlan.allCases)
  func `cut weights go with exchanged heads`(
    degrees: (sp: Int, tp: Int), plan: SequencePlan
  ) throws {
    for recompute in [false, true] {
      for example in VchitectTokens.all(recompute: recompute, adapted: true) {
        try example.expectAgreement(ring: 1, sp: degrees.sp, tp: degrees.tp, plan: plan)
      }
    }
  }

  /// A block sends what it gathers and sums by tokens (attention and MLP of both streams), the context's sums by
  /// columns, and a few columns of modulations; the velocity is gathered at the end.
  @Test(arguments: VchitectConfiguration.BlockVariant.allCases, [2, 4])
  func `a forward pass sends as many bytes as its exchanges have elements`(
    variant: VchitectConfiguration.BlockVariant, degree: Int
  ) throws {
    let (clips, frames, text, width, p) = (2, 3, 8, 24, degree)
    let example = VchitectTokens(
      variant, clipCount: clips, frameCount: frames, textCount: text, size: [4, 8])
    let specifications = example.configuration.parameterSpecifications
    let image = example.tokensPerFrame
    let sent = try InProcessMesh.run(size: degree) { transport in
      let exchange = TokenExchange(transport: transport)
      let arena = Arena()
      var failure: (any Error)?
      let sequence = TensorSequence<Double>(exchange) { body in
        do { try body() } catch { failure = error }
      }
      let network = CutNetwork(
        specifications, values: [Double](repeating: 0, count: FlatLayout(specifications).count),
        rank: transport.rank, degree: degree, arena: arena)
      let tape = Tape<Double>(arena: arena, role: .base, isRecording: false)
      _ = tape.inBlock("", of: [network.parameters], isDifferentiated: false) {
        example.forward(network.parameters, on: tape, in: arena, sequence: sequence)
      }
      if let failure { throw failure }
      return exchange.statistics[.activations].wireByteCount
    }
    let tokens = clips * frames * width * (p - 1) / p
    let isReleased = variant == .v2
    // Gathered and summed around attention and around the MLP; the context between two of its outputs.
    let perToken = isReleased ? 5 : 4
    // The last block's text is gathered alone.
    let blocks = perToken * tokens * (2 * image + text) + tokens * text
    let columns = (6 + 6 + 6 + 2) * clips * width * (p - 1) / p
    let gathered = clips * frames * image * 8 * (p - 1) / p
    for count in sent { #expect(count == 8 * (blocks + columns + gathered)) }
  }

  private func vchitect(
    _ variant: VchitectConfiguration.BlockVariant = .v2, _ plan: SequencePlan = .spatial
  ) -> (inout RunConfiguration) -> Void {
    {
      $0.model.architecture = .vchitect
      $0.model.variant = variant
      $0.model.doubleBlocks = 2
      $0.mesh.sequencePlan = plan
    }
  }

  /// Whole training steps in fp32: the weights of one rank up to rounding.
  @Test(
    arguments: [(2, 1, 2), (4, 1, 2), (4, 1, 4), (8, 2, 2)],
    VchitectConfiguration.BlockVariant.allCases)
  func `a run with cut weights follows the run of one rank`(
    layout: (ranks: Int, sp: Int, tp: Int), variant: VchitectConfiguration.BlockVariant
  ) throws {
    try TrainedRun(ranks: layout.ranks, sp: layout.sp, tp: layout.tp, vchitect(variant, .all))
      .expectAgreement(with: TrainedRun(ranks: 1, vchitect(variant)))
  }

  /// Sums within a group are made first, so that the degree need not be a power of two.
  @Test func `shards do not change a bit of a run with weights cut in three`() throws {
    let runs = try [(3, 1), (6, 1), (6, 2)].map { ranks, dp in
      try TrainedRun(ranks: ranks, tp: 3) {
        vchitect()(&$0)
        $0.model.heads = 3
        $0.mesh.dp = .fixed(dp)
      }
    }
    for run in runs {
      let isSame = run.weights[0] == runs[0].weights[0] && run.readings == runs[0].readings
      #expect(isSame)
    }
  }
}
