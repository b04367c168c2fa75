// Cases of the comparison between the plan and the ledger with roles on ranks of their own.

import Diffusion
import Models

@testable import Training

extension PlannedCase {
  private static func split(
    _ name: String, ranks: Int, generators: Int, stage: Int = 1, generatorStage: Int? = nil,
    _ change: (inout RunConfiguration) -> Void = { _ in }
  ) -> PlannedCase {
    PlannedCase(name, ranks: ranks) {
      $0.mesh.placement = .split
      $0.mesh.generatorRanks = .fixed(generators)
      $0.mesh.zeroStage = .fixed(stage)
      $0.mesh.generatorZeroStage = generatorStage.map { .fixed($0) } ?? .auto
      change(&$0)
    }
  }

  static let split = [
    split("split roles", ranks: 2, generators: 1),
    split("split roles, uneven", ranks: 4, generators: 1),
    split("split roles, uneven", ranks: 4, generators: 3) { $0.distill.criticRatio = 1 },
    split("split roles, all terms, recomputed", ranks: 4, generators: 2) {
      $0.distill.rollout = .data
      $0.distill.lambdaGroundTruth = 0.5
      $0.distill.lambdaAdversarial = 0.1
      $0.distill.guidance = 3
      $0.model.recompute = true
    },
    split("split roles, stage 2", ranks: 4, generators: 2, stage: 2) {
      $0.distill.lambdaAdversarial = 0.1
    },
    split("split roles, stage 3", ranks: 4, generators: 2, stage: 3) {
      $0.distill.guidance = 3
      $0.model.recompute = true
    },
    split("split roles, W at stage 3", ranks: 4, generators: 2, stage: 3, generatorStage: 1),
    split("split roles, the generator at stage 3", ranks: 4, generators: 2, generatorStage: 3),
    split("split roles of one rank, stage 3", ranks: 2, generators: 1, stage: 3) {
      $0.distill.lambdaAdversarial = 0.1
    },
    split("split roles, Vchitect", ranks: 4, generators: 2, stage: 3) {
      $0.model.architecture = .vchitect
      $0.model.heads = 4
      $0.model.recompute = true
      $0.distill.guidance = 2
    },
    split("split roles that share tokens", ranks: 8, generators: 4) { $0.mesh.sp = .fixed(2) },
    split("split roles with a ring, replicas", ranks: 8, generators: 4) {
      $0.mesh.ring = .fixed(2)
      $0.mesh.dp = .fixed(2)
      $0.distill.guidance = 3
    },
    split("split roles that cut weights, recomputed", ranks: 8, generators: 4, stage: 3) {
      $0.mesh.tp = .fixed(2)
      $0.model.recompute = true
    },
    split("a generator in parts, the discriminator whole", ranks: 6, generators: 4) {
      $0.mesh.generatorTp = .fixed(2)
      $0.distill.lambdaAdversarial = 0.1
      $0.batch.microbatches = 6
    },
    split("scores on shared tokens, a generator on all", ranks: 6, generators: 2, stage: 2) {
      $0.mesh.sp = .fixed(2)
      $0.mesh.generatorSp = .fixed(1)
      $0.batch.microbatches = 12
    },
    split("split roles, Vchitect, shared tokens", ranks: 4, generators: 2) {
      $0.model.architecture = .vchitect
      $0.mesh.sp = .fixed(2)
      $0.mesh.sequencePlan = .all
    },
    split("split roles, Vchitect, cut weights", ranks: 8, generators: 4, stage: 3) {
      $0.model.architecture = .vchitect
      $0.mesh.tp = .fixed(2)
      $0.distill.guidance = 3
    },
    split("split roles in stages", ranks: 4, generators: 2, stage: 3) {
      $0.mesh.stages = .fixed(2)
    },
    split("split roles in stages that cut weights", ranks: 8, generators: 4, stage: 3) {
      $0.mesh.stages = .fixed(2)
      $0.mesh.tp = .fixed(2)
      $0.mesh.schedule = .gPipe
      $0.distill.guidance = 3
    },
    split("a generator in three stages, recomputed", ranks: 4, generators: 3) {
      $0.mesh.generatorStages = .fixed(3)
      $0.model.recompute = true
      $0.distill.lambdaAdversarial = 0.1
    },
    split("split roles, weights not packed, many samples", ranks: 2, generators: 1) {
      $0.compute.packedWeights = .off
      $0.batch.samples = 3
      $0.distill.method = .dmd2
    },
  ]
}
