// Configurations whose plans are compared with what runs of them book and send.

import Diffusion
import Exchange
import Testing

@testable import Training

/// A case of the comparison between the plan and the ledger.
struct PlannedCase: Sendable, CustomTestStringConvertible {
  let testDescription: String
  let rankCount: Int
  let configuration: RunConfiguration

  init(
    _ name: String, ranks rankCount: Int = 1, _ change: (inout RunConfiguration) -> Void = { _ in }
  ) {
    var configuration = RunConfiguration()
    configuration.data.frameCount = 9
    configuration.data.size = 32
    configuration.data.shortSide = 32
    configuration.data.proceduralPeople = 1
    configuration.model.heads = 2
    configuration.model.headWidth = 16
    configuration.model.doubleBlocks = 2
    configuration.model.singleBlocks = 2
    configuration.model.textTokens = 3
    configuration.model.textWidth = 24
    configuration.model.pooledWidth = 16
    configuration.batch.microbatches = 4
    configuration.teach.steps = 2
    configuration.distill.steps = 3
    configuration.distill.criticRatio = 2
    configuration.distill.loraRank = 4
    configuration.distill.discriminatorWidth = 32
    configuration.evaluate.batch = 2
    change(&configuration)
    testDescription = "\(name), \(rankCount) ranks"
    self.rankCount = rankCount
    self.configuration = configuration
  }

  /// Blocks enough, and tokens enough for their inputs to go.
  static func offload(_ configuration: inout RunConfiguration) {
    configuration.model.recompute = true
    configuration.model.offload = true
    configuration.model.singleBlocks = 7
    (configuration.data.size, configuration.data.shortSide) = (64, 64)
    configuration.batch.samples = 3
  }

  static let all = [
    PlannedCase("stored"),
    PlannedCase("stored", ranks: 2),
    PlannedCase("stored", ranks: 4),
    PlannedCase("recomputed") { $0.model.recompute = true },
    PlannedCase("recomputed", ranks: 2) { $0.model.recompute = true },
    PlannedCase("half of the blocks recomputed") {
      $0.model.recompute = true
      $0.model.recomputedShare = 0.5
    },
    PlannedCase("many text tokens, three samples") {
      $0.model.textTokens = 37
      $0.batch.samples = 3
    },
    PlannedCase("uneven shares", ranks: 3) { $0.batch.microbatches = 8 },
    PlannedCase("all terms", ranks: 2) {
      $0.distill.rollout = .data
      $0.distill.lambdaGroundTruth = 0.5
      $0.distill.lambdaAdversarial = 0.1
      $0.distill.guidance = 3
      $0.model.guidanceEmbedding = true
    },
    PlannedCase("all terms, recomputed") {
      $0.distill.lambdaAdversarial = 0.1
      $0.model.recompute = true
      $0.model.doubleBlocks = 1
      $0.model.singleBlocks = 4
    },
    PlannedCase("wide and short") {
      $0.model.heads = 4
      $0.model.headWidth = 32
      $0.data.frameCount = 5
      $0.batch.samples = 1
    },
    PlannedCase("inputs of blocks in a file") { offload(&$0) },
    PlannedCase("inputs of blocks in a file, shared tokens", ranks: 4) {
      offload(&$0)
      $0.mesh.sp = .fixed(2)
      $0.distill.guidance = 3
    },
    PlannedCase("inputs of half of the blocks in a file, stage 3", ranks: 2) {
      offload(&$0)
      $0.model.recomputedShare = 0.5
      $0.mesh.zeroStage = .fixed(3)
      $0.distill.lambdaAdversarial = 0.1
    },
    PlannedCase("inputs of blocks in a file, two stages", ranks: 2) {
      offload(&$0)
      $0.mesh.stages = .fixed(2)
    },
    PlannedCase("inputs of blocks in a file, three stages", ranks: 3) {
      offload(&$0)
      $0.mesh.stages = .fixed(3)
    },
    PlannedCase("inputs of blocks in a file, two stages under GPipe", ranks: 2) {
      offload(&$0)
      $0.mesh.stages = .fixed(2)
      $0.mesh.schedule = .gPipe
    },
    PlannedCase("inputs of blocks in a file, three stages under GPipe, guided", ranks: 3) {
      offload(&$0)
      $0.mesh.stages = .fixed(3)
      $0.mesh.schedule = .gPipe
      $0.distill.guidance = 3
    },
    PlannedCase("weights not packed", ranks: 2) { $0.compute.packedWeights = .off },
    PlannedCase("DMD2") { $0.distill.method = .dmd2 },
    PlannedCase("LCM", ranks: 2) { $0.distill.method = .lcm },
    PlannedCase("shared tokens", ranks: 2) { $0.mesh.sp = .fixed(2) },
    PlannedCase("shared tokens", ranks: 4) { $0.mesh.sp = .fixed(2) },
    PlannedCase("shared tokens, recomputed", ranks: 4) {
      $0.mesh.sp = .fixed(2)
      $0.model.recompute = true
      $0.distill.guidance = 3
    },
    PlannedCase("more parts than text tokens", ranks: 4) {
      $0.model.heads = 4
      $0.mesh.sp = .fixed(4)
      $0.model.textTokens = 2
      $0.batch.samples = 1
    },
    PlannedCase("stage 2", ranks: 2) { $0.mesh.zeroStage = .fixed(2) },
    PlannedCase("stage 2, all terms, recomputed", ranks: 4) {
      $0.mesh.zeroStage = .fixed(2)
      $0.distill.lambdaAdversarial = 0.1
      $0.distill.guidance = 3
      $0.model.recompute = true
    },
    PlannedCase("stage 3", ranks: 2) { $0.mesh.zeroStage = .fixed(3) },
    PlannedCase("stage 3, recomputed", ranks: 4) {
      $0.mesh.zeroStage = .fixed(3)
      $0.model.recompute = true
    },
    PlannedCase("stage 2 without overlap", ranks: 2) {
      $0.mesh.zeroStage = .fixed(2)
      $0.exchange.overlap = .off
    },
    PlannedCase("stage 3 without overlap, recomputed", ranks: 4) {
      $0.mesh.zeroStage = .fixed(3)
      $0.exchange.overlap = .off
      $0.model.recompute = true
    },
    PlannedCase("stage 3, all terms", ranks: 4) {
      $0.mesh.zeroStage = .fixed(3)
      $0.distill.lambdaAdversarial = 0.1
      $0.distill.guidance = 3
      $0.distill.alphaWeak = 0
    },
    PlannedCase("replicas", ranks: 4) { $0.mesh.dp = .fixed(4) },
    PlannedCase("replicas of shards", ranks: 4) {
      $0.mesh.dp = .fixed(2)
      $0.distill.lambdaAdversarial = 0.1
    },
    PlannedCase("replicas at stage 3", ranks: 4) {
      $0.mesh.dp = .fixed(2)
      $0.mesh.zeroStage = .fixed(3)
    },
    PlannedCase("stage 3 with LCM", ranks: 2) {
      $0.mesh.zeroStage = .fixed(3)
      $0.distill.method = .lcm
    },
    PlannedCase("stage 3 with shared tokens", ranks: 4) {
      $0.mesh.zeroStage = .fixed(3)
      $0.mesh.sp = .fixed(2)
    },
    PlannedCase("canonical sums") { $0.mesh.sums = .canonical },
    PlannedCase("canonical sums, three samples, recomputed", ranks: 2) {
      $0.mesh.sums = .canonical
      $0.model.recompute = true
      $0.batch.samples = 3
    },
    PlannedCase("canonical sums, shared tokens", ranks: 2) {
      $0.mesh.sums = .canonical
      $0.mesh.sp = .fixed(2)
    },
    PlannedCase("canonical sums, shared tokens, stage 3, recomputed", ranks: 4) {
      $0.mesh.sums = .canonical
      $0.mesh.sp = .fixed(2)
      $0.mesh.zeroStage = .fixed(3)
      $0.model.recompute = true
      $0.distill.guidance = 3
    },
    PlannedCase("canonical sums, more parts than text tokens", ranks: 8) {
      $0.model.heads = 4
      $0.mesh.sums = .canonical
      $0.mesh.sp = .fixed(4)
      $0.model.textTokens = 2
      $0.batch.samples = 1
    },
    PlannedCase("canonical sums, cut weights", ranks: 2) {
      $0.mesh.sums = .canonical
      $0.mesh.tp = .fixed(2)
    },
    PlannedCase("canonical sums, weights cut in four, recomputed", ranks: 8) {
      $0.model.heads = 4
      $0.mesh.sums = .canonical
      $0.mesh.tp = .fixed(4)
      $0.model.recompute = true
      $0.batch.samples = 3
      $0.distill.guidance = 3
    },
    PlannedCase("canonical sums, cut weights and shared tokens", ranks: 8) {
      $0.model.heads = 4
      $0.mesh.sums = .canonical
      ($0.mesh.sp, $0.mesh.tp) = (.fixed(2), .fixed(2))
    },
    PlannedCase("canonical sums in stages", ranks: 2) {
      $0.mesh.sums = .canonical
      $0.mesh.stages = .fixed(2)
    },
    PlannedCase("a ring", ranks: 2) { $0.mesh.ring = .fixed(2) },
    PlannedCase("a ring of three, uneven", ranks: 3) {
      $0.mesh.ring = .fixed(3)
      $0.batch.samples = 3
    },
    PlannedCase("a ring, recomputed", ranks: 4) {
      $0.mesh.ring = .fixed(2)
      $0.model.recompute = true
      $0.distill.guidance = 3
    },
    PlannedCase("a ring of groups", ranks: 4) {
      $0.mesh.ring = .fixed(2)
      $0.mesh.sp = .fixed(2)
    },
    PlannedCase("a ring of groups, twice", ranks: 8) {
      $0.mesh.ring = .fixed(2)
      $0.mesh.sp = .fixed(2)
      $0.model.textTokens = 5
    },
    PlannedCase("cut weights", ranks: 2) { $0.mesh.tp = .fixed(2) },
    PlannedCase("cut weights", ranks: 4) { $0.mesh.tp = .fixed(2) },
    PlannedCase("cut weights, recomputed, many samples", ranks: 4) {
      $0.mesh.tp = .fixed(2)
      $0.model.recompute = true
      $0.distill.guidance = 3
      $0.batch.samples = 3
    },
    PlannedCase("cut weights of replicas", ranks: 4) {
      $0.mesh.tp = .fixed(2)
      $0.mesh.dp = .fixed(2)
      $0.distill.alphaWeak = 0
    },
    PlannedCase("weights cut in four, fewer text tokens", ranks: 4) {
      $0.model.heads = 4
      $0.model.textTokens = 2
      $0.mesh.tp = .fixed(4)
    },
    PlannedCase("weights cut in three", ranks: 6) {
      $0.model.heads = 3
      $0.mesh.tp = .fixed(3)
      $0.batch.samples = 1
    },
    PlannedCase("cut weights of one block", ranks: 4) {
      $0.model.doubleBlocks = 1
      $0.model.singleBlocks = 0
      $0.mesh.tp = .fixed(2)
    },
    PlannedCase("cut weights inside a ring of groups", ranks: 8) {
      $0.model.heads = 4
      $0.mesh.tp = .fixed(2)
      $0.mesh.ring = .fixed(2)
      $0.mesh.sp = .fixed(2)
    },
    PlannedCase("LCM with cut weights", ranks: 4) {
      $0.distill.method = .lcm
      $0.mesh.tp = .fixed(2)
    },
    PlannedCase("LCM with a ring", ranks: 2) {
      $0.distill.method = .lcm
      $0.mesh.ring = .fixed(2)
    },
    PlannedCase("LCM with shared tokens", ranks: 2) {
      $0.distill.method = .lcm
      $0.mesh.sp = .fixed(2)
    },
    PlannedCase("two stages", ranks: 2) { $0.mesh.stages = .fixed(2) },
    PlannedCase("two stages, all forward first", ranks: 2) {
      $0.mesh.stages = .fixed(2)
      $0.mesh.schedule = .gPipe
      $0.distill.guidance = 3
      $0.batch.samples = 3
    },
    PlannedCase("three stages, recomputed", ranks: 3) {
      $0.mesh.stages = .fixed(3)
      $0.model.recompute = true
      $0.batch.microbatches = 5
    },
    PlannedCase("four stages, wide", ranks: 4) {
      $0.mesh.stages = .fixed(4)
      $0.model.heads = 4
      $0.model.headWidth = 32
      $0.distill.alphaWeak = 0
    },
    PlannedCase("replicas of stages", ranks: 4) {
      $0.mesh.stages = .fixed(2)
      $0.mesh.dp = .fixed(2)
    },
    PlannedCase("sharded stages", ranks: 4) {
      $0.mesh.stages = .fixed(2)
      $0.mesh.schedule = .gPipe
    },
    PlannedCase("stages that share tokens", ranks: 4) {
      $0.mesh.stages = .fixed(2)
      $0.mesh.sp = .fixed(2)
    },
    PlannedCase("stages with more parts than text tokens", ranks: 8) {
      $0.mesh.stages = .fixed(2)
      $0.model.heads = 4
      $0.mesh.sp = .fixed(4)
      $0.model.textTokens = 2
      $0.mesh.schedule = .gPipe
    },
    PlannedCase("stages with a ring of three, uneven", ranks: 6) {
      $0.mesh.stages = .fixed(2)
      $0.mesh.ring = .fixed(3)
      $0.distill.guidance = 3
    },
    PlannedCase("stages that cut weights", ranks: 4) {
      $0.mesh.stages = .fixed(2)
      $0.mesh.tp = .fixed(2)
    },
    PlannedCase("sharded stages that cut weights, recomputed", ranks: 8) {
      $0.mesh.stages = .fixed(2)
      $0.mesh.tp = .fixed(2)
      $0.model.recompute = true
      $0.mesh.schedule = .gPipe
    },
    PlannedCase("replicas of stages that share tokens", ranks: 8) {
      $0.mesh.stages = .fixed(2)
      $0.mesh.dp = .fixed(2)
      $0.mesh.sp = .fixed(2)
    },
    PlannedCase("stages, a ring of groups, cut weights", ranks: 16) {
      $0.model.heads = 4
      $0.mesh.stages = .fixed(2)
      $0.mesh.ring = .fixed(2)
      $0.mesh.sp = .fixed(2)
      $0.mesh.tp = .fixed(2)
    },
    PlannedCase("LCM in stages that cut weights", ranks: 4) {
      $0.mesh.stages = .fixed(2)
      $0.mesh.tp = .fixed(2)
      $0.distill.method = .lcm
    },
    PlannedCase("LCM in stages", ranks: 2) {
      $0.mesh.stages = .fixed(2)
      $0.distill.method = .lcm
    },
  ]
}
