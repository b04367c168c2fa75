// With `mesh.sums: canonical` ranks that share tokens, and those that cut weights, have the bits of one rank.

import DenseKernels
import MeshLayout
import Models
import TestSupport
import Testing

@testable import Training

@Suite struct CanonicalSumsTests {
  private static let changes: [(name: String, change: @Sendable (inout RunConfiguration) -> Void)] =
    [
      ("guided, fewer text tokens than parts", { $0.distill.guidance = 2 }),
      (
        "four microbatches of two samples, 27 video tokens and 5 of text, recomputed",
        {
          ($0.data.frameCount, $0.data.size, $0.data.shortSide) = (9, 24, 24)
          $0.model.textTokens = 5
          $0.model.recompute = true
          ($0.batch.microbatches, $0.batch.samples) = (4, 2)
          $0.distill.generatorSteps = 3
        }
      ),
      (
        "bfloat16, half of the blocks recomputed",
        {
          $0.compute.precision = .bf16
          $0.model.singleBlocks = 2
          $0.model.recompute = true
          $0.model.recomputedShare = 0.5
          $0.model.guidanceEmbedding = true
        }
      ),
      (
        "Vchitect v2, 9 tokens a frame and 3 of text, two samples, recomputed",
        {
          vchitect(&$0, .v2)
          ($0.data.size, $0.data.shortSide) = (24, 24)
          $0.model.textTokens = 3
          $0.model.recompute = true
          $0.batch.samples = 2
          $0.distill.guidance = 2
        }
      ),
      (
        "Vchitect v1, fewer text tokens than parts, bfloat16",
        {
          vchitect(&$0, .v1)
          $0.compute.precision = .bf16
        }
      ),
      (
        "a discriminator, two samples",
        {
          $0.distill.lambdaAdversarial = 0.5
          $0.distill.lambdaDiscriminator = 1
          $0.batch.samples = 2
        }
      ),
      (
        "Vchitect with a discriminator, recomputed",
        {
          vchitect(&$0, .v2)
          $0.distill.lambdaAdversarial = 0.5
          $0.distill.lambdaDiscriminator = 1
          $0.model.recompute = true
        }
      ),
      (
        "LCM, two samples",
        {
          $0.distill.method = .lcm
          $0.batch.samples = 2
        }
      ),
    ]

  private static func vchitect(
    _ configuration: inout RunConfiguration, _ variant: VchitectConfiguration.BlockVariant
  ) {
    configuration.model.architecture = .vchitect
    configuration.model.variant = variant
    configuration.model.doubleBlocks = 2
    // Form v1 has no text keys of other ranks, so both plans keep the bits.
    configuration.mesh.sequencePlan = variant == .v2 ? .all : .spatial
  }

  /// Teach and distill.
  private func run(
    _ ranks: Int, dp: Int = 1, sp: Int = 1, tp: Int = 1, stage: Int? = nil,
    sums: RunConfiguration.SumOrder = .canonical, _ change: (inout RunConfiguration) -> Void
  ) throws -> TrainedRun {
    let configuration = TinyRun.configuration {
      $0.model.heads = 8
      $0.batch.microbatches = 8
      $0.teach.steps = 2
      $0.distill.steps = 3
      $0.compute.precision = .fp32
      $0.mesh.sums = sums
      ($0.mesh.dp, $0.mesh.sp, $0.mesh.tp) = (.fixed(dp), .fixed(sp), .fixed(tp))
      if let stage { $0.mesh.zeroStage = .fixed(stage) }
      change(&$0)
    }
    #expect(configuration.validate() == [] && configuration.validate(rankCount: ranks) == [])
    return try TrainedRun(configuration, ranks: ranks)
  }

  /// What differs between jobs, on the largest degrees and on both axes at once; LayoutTableTests has every degree.
  @Test(.enabled(if: BLASRuntime.hasAVX512), arguments: changes.indices)
  func `ranks that share tokens or cut weights have the bits of one rank`(_ index: Int) throws {
    let (name, change) = Self.changes[index]
    let alone = try run(1, change)
    #expect(alone.weights[0].allSatisfy(\.isFinite) && alone.readings.count > 8)
    for (ranks, sp, tp, stage) in [(4, 4, 1, 3), (8, 8, 1, nil), (4, 2, 2, nil), (8, 1, 8, nil)] {
      expect(
        try run(ranks, sp: sp, tp: tp, stage: stage, change), toEqual: alone,
        "\(name), \(ranks) ranks, sp \(sp), tp \(tp), stage \(stage ?? 0)")
    }
  }

  /// Two slices: as many as the largest power of two that divides six heads.
  @Test(.enabled(if: BLASRuntime.hasAVX512))
  func `heads that eight does not divide are cut in fewer slices`() throws {
    func six(_ configuration: inout RunConfiguration) { configuration.model.heads = 6 }
    let alone = try run(1, six)
    expect(try run(2, tp: 2, six), toEqual: alone, "tp 2")
    expect(try run(4, sp: 2, stage: 3, six), toEqual: alone, "sp 2")
    // Three heads a rank, of which sp 2 would have one and a half.
    expect(try run(4, dp: 2, tp: 2, six), toEqual: alone, "replicas of tp 2")
  }

  @Test(.enabled(if: BLASRuntime.hasAVX512))
  func `replicas, stages of a pipeline and split roles have these bits too`() throws {
    func deep(_ configuration: inout RunConfiguration) { configuration.model.doubleBlocks = 2 }
    let alone = try run(1, deep)
    expect(try run(8, dp: 2, sp: 2, stage: 2, deep), toEqual: alone, "replicas of shared tokens")
    expect(try run(2, stage: 1, deep), toEqual: alone, "two ranks")
    expect(
      try run(4) {
        deep(&$0)
        $0.mesh.stages = .fixed(2)
      }, toEqual: alone, "two stages")
    expect(
      try run(2) {
        deep(&$0)
        $0.mesh.placement = .split
      }, toEqual: alone, "split roles")
    func discriminated(_ configuration: inout RunConfiguration) {
      deep(&configuration)
      configuration.distill.lambdaAdversarial = 0.5
    }
    expect(
      try run(4, sp: 2, stage: 3) {
        discriminated(&$0)
        $0.mesh.stages = .fixed(2)
      }, toEqual: try run(1, discriminated), "two stages that share tokens, with a discriminator")
    expect(try run(8, dp: 2, tp: 2, deep), toEqual: alone, "replicas of cut weights")
    for (sp, tp) in [(1, 2), (2, 1), (2, 2)] {
      expect(
        try run(8, sp: sp, tp: tp) {
          deep(&$0)
          $0.mesh.stages = .fixed(2)
        }, toEqual: alone, "two stages of sp \(sp) and tp \(tp)")
    }
    expect(
      try run(4, tp: 2) {
        deep(&$0)
        $0.mesh.placement = .split
      }, toEqual: alone, "split roles that cut weights")
    func multimodal(_ configuration: inout RunConfiguration) {
      Self.vchitect(&configuration, .v2)
      configuration.batch.microbatches = 4
    }
    let aloneMultimodal = try run(1, multimodal)
    expect(
      try run(8, sp: 2, tp: 2) {
        multimodal(&$0)
        $0.mesh.stages = .fixed(2)
      }, toEqual: aloneMultimodal, "two stages of Vchitect's that share tokens and cut weights")
    expect(
      try run(4, tp: 2) {
        multimodal(&$0)
        $0.mesh.placement = .split
      }, toEqual: aloneMultimodal, "split roles of Vchitect's that cut weights")
  }

  /// The same sums in another order: right, and not the same bits, or there were nothing to prove.
  @Test func `canonical sums are the fast ones up to rounding`() throws {
    let (fast, canonical) = (try run(1, sums: .fast) { _ in }, try run(1) { _ in })
    #expect(canonical.distance(to: fast) <= 1e-5)
    #expect(canonical.distance(to: fast) > 0)
    for (found, expected) in zip(canonical.readings, fast.readings) {
      #expect(found.name == expected.name)
      #expect(abs(found.value - expected.value) <= 1e-4 * abs(expected.value) + 1e-9, "\(found)")
    }
  }

  /// In Float64, where rounding hides nothing: sums over the parts are the gradients, what all have is counted once.
  @Test(arguments: [1, 2, 4, 8], [false, true])
  func `outputs and gradients are those of one rank without such sums`(
    degree: Int, recompute: Bool
  ) throws {
    for (sampleCount, textCount, masked) in [(1, 9, true), (2, 4, false), (1, 2, true)] {
      try SharedTokensExample(
        sampleCount: sampleCount, textCount: textCount, masked: masked, recompute: recompute,
        adapted: true, heads: 8
      ).expectAgreement(ring: 1, sp: degree, isCanonical: true)
    }
    try SharedTokensExample(
      sampleCount: 2, textCount: 5, masked: true, recompute: recompute, adapted: true, heads: 8
    ).expectAgreement(ring: 1, sp: 1, tp: degree, isCanonical: true)
    if degree > 1 {
      try SharedTokensExample(
        sampleCount: 1, textCount: 3, masked: false, recompute: recompute, adapted: true, heads: 8
      ).expectAgreement(ring: 1, sp: 2, tp: degree / 2, isCanonical: true)
    }
    try VchitectTokens(
      heads: 8, clipCount: 2, frameCount: 2, textCount: 3, recompute: recompute
    ).expectAgreement(ring: 1, sp: degree, plan: .all, isCanonical: true)
    try VchitectTokens(.v1, heads: 8, frameCount: 2, textCount: 5, recompute: recompute)
      .expectAgreement(ring: 1, sp: degree, isCanonical: true)
    try VchitectTokens(
      heads: 8, clipCount: 2, frameCount: 2, textCount: 3, recompute: recompute, adapted: true
    ).expectAgreement(ring: 1, sp: 1, tp: degree, isCanonical: true)
    if degree > 1 {
      try VchitectTokens(
        .v1, heads: 8, frameCount: 2, textCount: 5, recompute: recompute, adapted: true
      ).expectAgreement(ring: 1, sp: 2, tp: degree / 2, isCanonical: true)
    }
  }

  @Test func `what has no fixed blocks is refused by its key`() {
    func problems(
      ranks: Int, _ change: (inout RunConfiguration) -> Void
    ) -> [ConfigurationProblem] {
      let configuration = TinyRun.configuration {
        $0.model.heads = 6
        $0.mesh.sums = .canonical
        change(&$0)
      }
      return configuration.validate() + configuration.validate(rankCount: ranks)
    }
    #expect(problems(ranks: 2) { $0.mesh.sp = .fixed(2) }.isEmpty)
    for plan in SequencePlan.allCases {
      let keys = problems(ranks: 2) {
        $0.model.architecture = .vchitect
        $0.mesh.sp = .fixed(2)
        $0.mesh.sequencePlan = plan
      }.map(\.key)
      #expect(keys == (plan == .all ? [] : ["mesh.sequencePlan"]))
    }
    #expect(problems(ranks: 2) { $0.mesh.ring = .fixed(2) }.map(\.key) == ["mesh.ring"])
    #expect(problems(ranks: 2) { $0.mesh.tp = .fixed(2) }.isEmpty)
    // Of six heads there are two slices.
    #expect(problems(ranks: 3) { $0.mesh.tp = .fixed(3) }.map(\.key) == ["mesh.tp"])
    #expect(
      problems(ranks: 4) {
        $0.model.heads = 4
        $0.mesh.tp = .fixed(4)
      }.isEmpty)
    #expect(
      problems(ranks: 16) {
        $0.model.heads = 16
        ($0.mesh.sp, $0.mesh.tp) = (.fixed(2), .fixed(8))
      }.map(\.key) == ["mesh.sp"])
    #expect(
      problems(ranks: 2) {
        $0.model.architecture = .vchitect
        ($0.mesh.tp, $0.mesh.sequencePlan) = (.fixed(2), .all)
      }.isEmpty)
    #expect(problems(ranks: 3) { $0.mesh.sp = .fixed(3) }.map(\.key) == ["mesh.sp"])
    #expect(
      problems(ranks: 2) {
        $0.mesh.sp = .fixed(2)
        $0.mesh.zeroStage = .fixed(1)
      }.map(\.key) == ["mesh.zeroStage"])
  }
}
