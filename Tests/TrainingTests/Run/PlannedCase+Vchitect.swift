import Diffusion
import Models

@testable import Training

extension PlannedCase {
  /// Cases of Vchitect-2.0, in both forms of its block and by both plans of sharing tokens.
  static let vchitect: [PlannedCase] = {
    func planned(
      _ name: String, ranks: Int = 1, sp: Int = 1, _ plan: SequencePlan = .spatial,
      _ change: (inout RunConfiguration) -> Void = { _ in }
    ) -> PlannedCase {
      PlannedCase("Vchitect, \(name)", ranks: ranks) {
        $0.model.architecture = .vchitect
        $0.model.heads = 4
        $0.mesh.sp = .fixed(sp)
        $0.mesh.sequencePlan = plan
        change(&$0)
      }
    }
    let whole = [
      planned("stored"),
      planned("stored", ranks: 2),
      planned("form v1") { $0.model.variant = .v1 },
      planned("canonical sums, form v1, recomputed") {
        $0.mesh.sums = .canonical
        $0.model.variant = .v1
        $0.model.recompute = true
      },
      planned("canonical sums, shared tokens", ranks: 2, sp: 2, .all) {
        $0.mesh.sums = .canonical
      },
      planned("canonical sums, shared tokens, stage 3, two samples", ranks: 4, sp: 2, .all) {
        $0.mesh.sums = .canonical
        $0.mesh.zeroStage = .fixed(3)
        $0.batch.samples = 2
      },
      planned("a spatial gain, three samples, many text tokens") {
        $0.model.spatialGain = 1.1
        $0.batch.samples = 3
        $0.model.textTokens = 37
      },
      planned("half recomputed, all terms", ranks: 2) {
        $0.model.recompute = true
        $0.model.recomputedShare = 0.5
        $0.distill.lambdaAdversarial = 0.1
        $0.distill.guidance = 3
      },
      planned("LCM, form v1", ranks: 2) {
        $0.distill.method = .lcm
        $0.model.variant = .v1
      },
      planned("stage 2, recomputed", ranks: 4) {
        $0.mesh.zeroStage = .fixed(2)
        $0.model.recompute = true
      },
      planned("inputs of blocks in a file", ranks: 2) {
        offload(&$0)
        $0.model.doubleBlocks = 7
      },
      planned("weights not packed") { $0.compute.packedWeights = .off },
      planned("stage 3", ranks: 2) { $0.mesh.zeroStage = .fixed(3) },
      planned("stage 3, all terms", ranks: 4) {
        $0.mesh.zeroStage = .fixed(3)
        $0.distill.lambdaAdversarial = 0.1
        $0.distill.guidance = 3
      },
      planned("replicas at stage 3", ranks: 4) {
        $0.mesh.dp = .fixed(2)
        $0.mesh.zeroStage = .fixed(3)
      },
    ]
    let staged = [
      planned("two stages", ranks: 2) { $0.mesh.stages = .fixed(2) },
      planned("stages, form v1, recomputed", ranks: 3) {
        $0.model.doubleBlocks = 3
        $0.mesh.stages = .fixed(3)
        $0.model.variant = .v1
        $0.model.recompute = true
        $0.mesh.schedule = .gPipe
        $0.distill.guidance = 3
      },
      planned("stages that share tokens", ranks: 4, sp: 2) { $0.mesh.stages = .fixed(2) },
      planned("stages with a discriminator, from data", ranks: 2) {
        $0.mesh.stages = .fixed(2)
        $0.distill.lambdaAdversarial = 0.1
        ($0.distill.rollout, $0.distill.steps) = (.data, 4)
      },
      planned("stages that share tokens, all branches", ranks: 8, sp: 4, .all) {
        $0.mesh.stages = .fixed(2)
        $0.model.textTokens = 2
        $0.distill.method = .lcm
      },
    ]
    let shared = SequencePlan.allCases.flatMap { plan in
      [
        planned("shared tokens, \(plan)", ranks: 2, sp: 2, plan),
        planned("shared tokens, \(plan), a discriminator, from data", ranks: 4, sp: 2, plan) {
          $0.distill.lambdaAdversarial = 0.1
          ($0.distill.rollout, $0.distill.steps) = (.data, 4)
        },
        planned("shared tokens, \(plan)", ranks: 4, sp: 2, plan) { $0.distill.guidance = 3 },
        planned("shared tokens, \(plan), form v1, recomputed", ranks: 4, sp: 2, plan) {
          $0.model.variant = .v1
          $0.model.recompute = true
        },
        planned("shared tokens, \(plan), more parts than text tokens", ranks: 8, sp: 4, plan) {
          $0.model.textTokens = 2
          $0.batch.samples = 1
        },
        planned("shared tokens, \(plan), of three, uneven", ranks: 6, sp: 3, plan) {
          $0.model.heads = 3
          $0.model.textTokens = 5
          $0.model.spatialGain = 1.1
        },
        planned("shared tokens, \(plan), at stage 3", ranks: 4, sp: 2, plan) {
          $0.mesh.zeroStage = .fixed(3)
        },
        planned("shared tokens, \(plan), LCM", ranks: 4, sp: 2, plan) {
          $0.distill.method = .lcm
        },
      ]
    }
    func cut(
      _ name: String, ranks: Int, tp: Int, sp: Int = 1, _ plan: SequencePlan = .spatial,
      _ change: (inout RunConfiguration) -> Void = { _ in }
    ) -> PlannedCase {
      planned("cut weights\(name)", ranks: ranks, sp: sp, plan) {
        $0.mesh.tp = .fixed(tp)
        change(&$0)
      }
    }
    let cut = [
      cut("", ranks: 2, tp: 2),
      cut("", ranks: 4, tp: 2) { $0.distill.guidance = 3 },
      cut(", form v1", ranks: 2, tp: 2) { $0.model.variant = .v1 },
      cut(", form v1, of replicas, recomputed", ranks: 4, tp: 2) {
        $0.model.variant = .v1
        $0.mesh.dp = .fixed(2)
        $0.model.recompute = true
      },
      cut(", recomputed, three samples", ranks: 4, tp: 2) {
        $0.model.recompute = true
        $0.batch.samples = 3
      },
      cut(" in four, fewer text tokens, one sample", ranks: 8, tp: 4) {
        $0.model.textTokens = 2
        $0.batch.samples = 1
      },
      cut(" in three, uneven, a spatial gain", ranks: 6, tp: 3) {
        $0.model.heads = 3
        $0.model.textTokens = 5
        $0.model.spatialGain = 1.1
      },
      cut(", many text tokens", ranks: 4, tp: 2) { $0.model.textTokens = 37 },
      cut(", shared tokens", ranks: 8, tp: 2, sp: 2),
      cut(", shared tokens, all branches", ranks: 8, tp: 2, sp: 2, .all) {
        $0.distill.guidance = 3
      },
      cut(", LCM", ranks: 4, tp: 2) { $0.distill.method = .lcm },
      cut(", two stages", ranks: 4, tp: 2) { $0.mesh.stages = .fixed(2) },
      cut(", sharded stages, form v1, recomputed", ranks: 8, tp: 2) {
        $0.mesh.stages = .fixed(2)
        $0.model.variant = .v1
        $0.model.recompute = true
        $0.mesh.schedule = .gPipe
      },
      cut(", inputs of blocks in a file", ranks: 4, tp: 2) {
        offload(&$0)
        $0.model.doubleBlocks = 7
      },
    ]
    func canonical(
      _ name: String, ranks: Int, tp: Int, sp: Int = 1,
      _ change: (inout RunConfiguration) -> Void = { _ in }
    ) -> PlannedCase {
      planned("cut weights, canonical sums\(name)", ranks: ranks, sp: sp, .all) {
        $0.mesh.tp = .fixed(tp)
        $0.mesh.sums = .canonical
        change(&$0)
      }
    }
    let canonicalCut = [
      canonical("", ranks: 2, tp: 2),
      canonical(", in four, a spatial gain, recomputed, three samples", ranks: 8, tp: 4) {
        $0.model.spatialGain = 1.1
        $0.model.recompute = true
        ($0.model.textTokens, $0.batch.samples) = (2, 3)
      },
      canonical(", form v1, all terms", ranks: 4, tp: 2) {
        $0.model.variant = .v1
        $0.distill.lambdaAdversarial = 0.1
        $0.distill.guidance = 3
      },
      canonical(", shared tokens in stages", ranks: 8, tp: 2, sp: 2) {
        $0.mesh.stages = .fixed(2)
        $0.model.textTokens = 5
      },
    ]
    func ringed(
      _ name: String, ranks: Int, ring: Int, sp: Int = 1, _ plan: SequencePlan = .spatial,
      _ change: (inout RunConfiguration) -> Void = { _ in }
    ) -> PlannedCase {
      planned("a ring\(name)", ranks: ranks, sp: sp, plan) {
        $0.mesh.ring = .fixed(ring)
        change(&$0)
      }
    }
    let ringed = [
      ringed("", ranks: 2, ring: 2),
      ringed(", form v1, recomputed", ranks: 4, ring: 2) {
        $0.model.variant = .v1
        $0.model.recompute = true
        $0.distill.guidance = 3
      },
      ringed(" of three, uneven, a spatial gain", ranks: 3, ring: 3) {
        $0.model.textTokens = 5
        $0.model.spatialGain = 1.1
        $0.batch.samples = 3
      },
      ringed(" with more parts than text tokens", ranks: 4, ring: 4) {
        $0.model.textTokens = 2
        $0.batch.samples = 1
      },
      ringed(" of groups", ranks: 8, ring: 2, sp: 2) { $0.model.textTokens = 5 },
      ringed(" of groups, all branches", ranks: 8, ring: 2, sp: 2, .all) {
        $0.mesh.zeroStage = .fixed(3)
        $0.distill.guidance = 3
      },
      ringed(" of groups, LCM", ranks: 4, ring: 2, sp: 2, .all) { $0.distill.method = .lcm },
      ringed(" in stages", ranks: 4, ring: 2) { $0.mesh.stages = .fixed(2) },
      ringed(" of groups that cut weights", ranks: 8, ring: 2, sp: 2) { $0.mesh.tp = .fixed(2) },
      ringed(" of groups that cut weights, all branches, v1", ranks: 8, ring: 2, sp: 2, .all) {
        $0.mesh.tp = .fixed(2)
        $0.model.variant = .v1
      },
      ringed(" of stages that cut weights, recomputed", ranks: 16, ring: 2, sp: 2) {
        $0.mesh.stages = .fixed(2)
        $0.mesh.tp = .fixed(2)
        $0.model.recompute = true
      },
    ]
    return whole + staged + shared + cut + canonicalCut + ringed
  }()
}
