// Vchitect-2.0 where ranks share tokens or cut weights: replicas, shards, stages and roles on ranks of their own do not
// change a bit, as in CombinedAxesTests.

import MeshLayout
import Models
import Testing

@testable import Training

struct VchitectAxesTests {
  typealias Tokens = CombinedAxesTests.Tokens

  @Test(
    arguments: [Tokens(tp: 2), Tokens(ring: 2), Tokens(ring: 2, sp: 2), Tokens(sp: 2, tp: 2)],
    VchitectConfiguration.BlockVariant.allCases)
  func `replicas, shards, stages and split roles do not change a bit`(
    tokens: Tokens, variant: VchitectConfiguration.BlockVariant
  ) throws {
    /// - Parameter groups: of such ranks.
    func run(
      _ groups: Int, _ change: (inout RunConfiguration) -> Void = { _ in }
    ) throws -> TrainedRun {
      try tokens.run(groups) {
        $0.model.architecture = .vchitect
        $0.model.variant = variant
        // Either plan in one of the forms.
        $0.mesh.sequencePlan = variant == .v1 ? .all : .spatial
        change(&$0)
      }
    }
    let whole = try run(1)
    expect(try run(2), toEqual: whole, "two shards")
    expect(
      try run(2) {
        $0.mesh.dp = .fixed(2)
        $0.model.recompute = true
      }, toEqual: whole, "two replicas, recomputed")
    expect(try run(2) { $0.mesh.stages = .fixed(2) }, toEqual: whole, "two stages")
    expect(
      try run(2) {
        $0.mesh.placement = .split
        $0.mesh.generatorRanks = .fixed(tokens.degree)
      }, toEqual: whole, "one group of either role")
    guard tokens.degree == 2 else { return }
    expect(try run(4) { $0.mesh.dp = .fixed(2) }, toEqual: whole, "two replicas of two shards")
    expect(
      try run(4) {
        $0.mesh.stages = .fixed(2)
        $0.mesh.schedule = .gPipe
      }, toEqual: whole, "two stages of two shards")
    expect(
      try run(4) {
        $0.mesh.placement = .split
        $0.mesh.generatorRanks = .fixed(2 * tokens.degree)
        $0.mesh.stages = .fixed(2)
      }, toEqual: whole, "two stages in either role")
  }

  /// Score ranks, and generator ranks.
  @Test(arguments: [(Tokens(ring: 2), Tokens(tp: 2)), (Tokens(tp: 2), Tokens(ring: 2, sp: 2))])
  func `either role may share tokens in its own way`(_ score: Tokens, _ generator: Tokens) throws {
    func vchitect(_ configuration: inout RunConfiguration) {
      configuration.model.architecture = .vchitect
      configuration.model.doubleBlocks = 2
    }
    let count = max(generator.degree, score.degree)
    let split = try TrainedRun(
      ranks: 2 * count, ring: score.ring, sp: score.sp, tp: score.tp
    ) {
      vchitect(&$0)
      $0.mesh.placement = .split
      $0.mesh.generatorRanks = .fixed(count)
      $0.mesh.generatorRing = .fixed(generator.ring)
      $0.mesh.generatorSp = .fixed(generator.sp)
      $0.mesh.generatorTp = .fixed(generator.tp)
    }
    let isSame = split.weights.allSatisfy { $0 == split.weights[0] }
    #expect(isSame)
    try split.expectAgreement(with: TrainedRun(ranks: 1, vchitect))
  }
}
