// Axes inside of axes: what cuts the work between ranks without changing an order of sums does not change a bit,
// whatever else cuts the tokens and the weights.

import MeshLayout
import Models
import Testing

@testable import Training

@Suite struct CombinedAxesTests {
  /// Ranks that compute a microbatch together.
  struct Tokens: Sendable, CustomTestStringConvertible {
    var ring = 1
    var sp = 1
    var tp = 1

    var degree: Int { ring * sp * tp }
    var testDescription: String { "ring \(ring), sp \(sp), tp \(tp)" }

    static let all = [
      Tokens(sp: 2), Tokens(ring: 2), Tokens(tp: 2), Tokens(ring: 2, sp: 2), Tokens(sp: 2, tp: 2),
    ]

    /// - Parameter groups: of such ranks.
    func run(
      _ groups: Int, _ change: (inout RunConfiguration) -> Void = { _ in }
    ) throws -> TrainedRun {
      try TrainedRun(ranks: groups * degree, ring: ring, sp: sp, tp: tp) {
        $0.model.doubleBlocks = 2
        // At stage 3 sums go over the ranks of a group, then over microbatches.
        $0.mesh.zeroStage = .fixed(3)
        $0.distill.generatorSteps = 3
        change(&$0)
      }
    }
  }

  /// With the discriminator, whose head is counted once and whose gradient at a sample comes from the first stage.
  @Test(arguments: Tokens.all)
  func `stages do not change a bit of a run that shares tokens or cuts weights`(
    _ tokens: Tokens
  ) throws {
    func run(
      _ groups: Int, _ tokens: Tokens, _ change: (inout RunConfiguration) -> Void = { _ in }
    ) throws -> TrainedRun {
      try tokens.run(groups) {
        ($0.distill.lambdaAdversarial, $0.distill.lambdaDiscriminator) = (0.5, 1)
        change(&$0)
      }
    }
    let whole = try run(1, tokens)
    // Else stages would be compared with what one rank makes.
    #expect(whole.distance(to: try run(1, Tokens())) > 0)
    for schedule in RunConfiguration.PipelineOrder.allCases {
      expect(
        try run(2, tokens) {
          $0.mesh.stages = .fixed(2)
          $0.mesh.schedule = schedule
        }, toEqual: whole, "two stages, \(schedule)")
    }
    guard tokens.degree == 2 else { return }
    expect(try run(3, tokens) { $0.mesh.stages = .fixed(3) }, toEqual: whole, "three stages")
    expect(
      try run(4, tokens) {
        $0.mesh.stages = .fixed(2)
        $0.model.recompute = true
      }, toEqual: whole, "two stages of two shards, recomputed")
    expect(
      try run(4, tokens) {
        $0.mesh.stages = .fixed(2)
        $0.mesh.dp = .fixed(2)
      }, toEqual: whole, "two replicas of two stages")
  }

  @Test(arguments: [Tokens()] + Tokens.all)
  func `roles on ranks of their own do not change a bit of such a run either`(
    _ tokens: Tokens
  ) throws {
    // Joined networks have no head, which is left out here.
    let whole = try tokens.run(1)
    expect(
      try tokens.run(2) {
        $0.mesh.placement = .split
        $0.mesh.generatorRanks = .fixed(tokens.degree)
      }, toEqual: whole, "one group of either role")
    guard tokens.degree <= 2 else { return }
    expect(
      try tokens.run(4) {
        $0.mesh.placement = .split
        $0.mesh.generatorRanks = .fixed(2 * tokens.degree)
        $0.mesh.dp = .fixed(2)
      }, toEqual: whole, "two replicas in either role")
    expect(
      try tokens.run(4) {
        $0.mesh.placement = .split
        $0.mesh.generatorRanks = .fixed(2 * tokens.degree)
        $0.mesh.generatorDp = .fixed(2)
        $0.model.recompute = true
      }, toEqual: whole, "shards of what scores, replicas of the generator, recomputed")
    for schedule in RunConfiguration.PipelineOrder.allCases {
      expect(
        try tokens.run(4) {
          $0.mesh.placement = .split
          $0.mesh.generatorRanks = .fixed(2 * tokens.degree)
          $0.mesh.stages = .fixed(2)
          $0.mesh.schedule = schedule
        }, toEqual: whole, "two stages in either role, \(schedule)")
    }
    expect(
      try tokens.run(4) {
        $0.mesh.placement = .split
        $0.mesh.generatorRanks = .fixed(3 * tokens.degree)
        $0.mesh.generatorStages = .fixed(3)
      }, toEqual: whole, "a generator in three stages")
  }

  /// Score ranks, and generator ranks.
  @Test(arguments: [
    (Tokens(), Tokens(sp: 2)), (Tokens(sp: 2), Tokens()), (Tokens(ring: 2), Tokens(tp: 2)),
    (Tokens(tp: 2), Tokens(ring: 2, sp: 2)),
  ])
  func `either role may share tokens in its own way`(_ score: Tokens, _ generator: Tokens) throws {
    let alone = try TrainedRun(ranks: 1)
    let generatorCount = max(generator.degree, score.degree, 2)
    let split = try TrainedRun(
      ranks: 2 * generatorCount, ring: score.ring, sp: score.sp, tp: score.tp
    ) {
      $0.mesh.placement = .split
      $0.mesh.generatorRanks = .fixed(generatorCount)
      $0.mesh.generatorRing = .fixed(generator.ring)
      $0.mesh.generatorSp = .fixed(generator.sp)
      $0.mesh.generatorTp = .fixed(generator.tp)
    }
    #expect(split.weights.allSatisfy { $0 == split.weights[0] })
    try split.expectAgreement(with: alone)
  }
}
