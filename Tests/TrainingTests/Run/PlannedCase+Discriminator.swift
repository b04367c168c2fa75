// Cases of the comparison between the plan and the ledger with a discriminator whose features ranks compute together.

import Diffusion

@testable import Training

extension PlannedCase {
  static let discriminated = [
    discriminated("shared tokens", ranks: 4) { $0.mesh.sp = .fixed(2) },
    discriminated("shared tokens, recomputed, from data", ranks: 2) {
      $0.mesh.sp = .fixed(2)
      $0.model.recompute = true
      ($0.distill.rollout, $0.distill.steps) = (.data, 4)
    },
    discriminated("canonical sums, shared tokens", ranks: 4) {
      $0.mesh.sums = .canonical
      $0.mesh.sp = .fixed(2)
      $0.batch.samples = 2
    },
    discriminated("a ring of three, uneven, from data", ranks: 3) {
      $0.mesh.ring = .fixed(3)
      ($0.distill.rollout, $0.distill.steps) = (.data, 4)
    },
    discriminated("cut weights", ranks: 4) { $0.mesh.tp = .fixed(2) },
    discriminated("cut weights inside a ring of groups, from data", ranks: 8) {
      $0.model.heads = 4
      $0.mesh.tp = .fixed(2)
      $0.mesh.ring = .fixed(2)
      $0.mesh.sp = .fixed(2)
      ($0.distill.rollout, $0.distill.steps) = (.data, 4)
    },
    discriminated("two stages, from data", ranks: 2) {
      $0.mesh.stages = .fixed(2)
      ($0.distill.rollout, $0.distill.steps) = (.data, 4)
    },
    discriminated("three stages, features in the middle, recomputed", ranks: 3) {
      $0.mesh.stages = .fixed(3)
      ($0.model.doubleBlocks, $0.model.singleBlocks) = (3, 2)
      $0.model.recompute = true
      $0.batch.microbatches = 5
    },
    discriminated("two stages, features in the last, from data", ranks: 2) {
      $0.mesh.stages = .fixed(2)
      ($0.model.doubleBlocks, $0.model.singleBlocks) = (3, 1)
      ($0.distill.rollout, $0.distill.steps) = (.data, 4)
    },
    discriminated("two stages, all forward first", ranks: 4) {
      $0.mesh.stages = .fixed(2)
      $0.mesh.schedule = .gPipe
      $0.distill.guidance = 3
    },
    discriminated("replicas of stages that share tokens, from data", ranks: 8) {
      $0.mesh.stages = .fixed(2)
      $0.mesh.dp = .fixed(2)
      $0.mesh.sp = .fixed(2)
      ($0.distill.rollout, $0.distill.steps) = (.data, 4)
    },
    discriminated("stages that cut weights", ranks: 8) {
      $0.mesh.stages = .fixed(2)
      $0.mesh.tp = .fixed(2)
    },
  ]

  private static func discriminated(
    _ name: String, ranks: Int, _ change: (inout RunConfiguration) -> Void
  ) -> PlannedCase {
    PlannedCase("a discriminator, \(name)", ranks: ranks) {
      $0.distill.lambdaAdversarial = 0.1
      change(&$0)
    }
  }
}
