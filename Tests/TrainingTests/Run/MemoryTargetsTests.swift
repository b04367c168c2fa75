// What sharding, shared tokens and offload are for: the memory of a rank, as planned (`PlannedMemoryTests` compares
// plans with the ledgers of runs). Numbers and commands: Benchmarks/results/mesh_zen5-2core_2026-11-22.md.

import Autodiff
import MeshLayout
import Models
import Testing

@testable import Planning
@testable import Training

struct MemoryTargetsTests {
  /// Weights that products keep packed depend on the machine.
  private func costs(
    of configuration: RunConfiguration, _ shape: MeshShape
  ) throws -> RunCosts {
    var configuration = configuration
    configuration.compute.packedWeights = .off
    return try CostModel.costs(of: WorkloadSizes(configuration), shape: shape)
  }

  // MARK: A job of 300 M parameters

  private static let job: RunConfiguration = {
    var job = RunConfiguration()
    (job.data.frameCount, job.data.size, job.data.shortSide) = (5, 16, 20)
    (job.model.heads, job.model.headWidth) = (16, 64)
    (job.model.doubleBlocks, job.model.singleBlocks) = (4, 8)
    (job.batch.microbatches, job.batch.samples) = (8, 1)
    (job.teach.steps, job.teach.warmupSteps) = (2, 1)
    (job.distill.steps, job.distill.criticRatio) = (2, 2)
    (job.sample.clips, job.sample.teacherSteps, job.evaluate.samples) = (1, 1, 2)
    job.model.recompute = true
    return job
  }()

  private static let layout = FlatLayout(
    ConditionedTransformer<Float>.specifications(
      of: job.transformer, nullTokenCount: job.model.textTokens))

  /// Bytes of parameters, gradients, optimizer and averages of a role at their peaks, on the fullest rank.
  private func stateByteCount(_ costs: RunCosts, of role: PlannedRole) -> Int {
    costs.memory.map { memory in
      [PlannedCategory.parameters, .gradients, .optimizer, .ema]
        .reduce(0) { $0 + memory.peakByteCount(role, $1) }
    }.max() ?? 0
  }

  @Test func `eight ranks at stage 3 hold at most a fifth of what one holds`() throws {
    let alone = try costs(of: Self.job, MeshShape())
    let shared = try costs(of: Self.job, MeshShape([.zero: 8], zeroStage: .parameters))
    #expect(abs(Self.layout.count - 300_000_000) < 15_000_000)
    #expect(5 * shared.peakByteCountPerRank <= alone.peakByteCountPerRank)

    // Specification of distributed systems, §3, fp32: weights 4, moments 8, an average 4 bytes a parameter; gradients
    // 4 for each partial sum that lives: of 8 microbatches on one rank the three of 4, 2 and 1 before the
    // last one, and its own; of one round of 8 ranks its own alone.
    let psi = Self.layout.count
    let blocks = Self.layout.units.filter { !$0.block.isEmpty }.map(\.range.count)
    let outside = psi - blocks.reduce(0, +)
    // In memory beside the shard, weights and gradients alike: what is outside of blocks, a block, and the next one,
    // which is loaded ahead, or the last one, whose gradient is on its way.
    let gathered = 4 * (outside + 2 * (try #require(blocks.max())))
    for role in [PlannedRole.base, .generator] {
      for (found, expected) in [
        (stateByteCount(alone, of: role), (4 + 4 * 4 + 8 + 4) * psi),
        (stateByteCount(shared, of: role), (4 + 4 + 8 + 4) * psi / 8 + 2 * gathered),
      ] {
        #expect(
          abs(found - expected) * 20 <= expected, "\(role): \(found) planned, \(expected) by hand")
      }
    }
  }

  // MARK: The longest sequence under a cap

  /// Clips of so many latent frames of 32 × 32 tokens through 24 blocks: whether the process fits that teaches, distills
  /// and samples them, as on the page above.
  private func fits(frames: Int, offload: Bool, _ shape: MeshShape = MeshShape()) throws -> Bool {
    var job = RunConfiguration()
    (job.data.frameCount, job.data.size, job.data.shortSide) = (4 * frames - 3, 256, 256)
    (job.model.heads, job.model.headWidth) = (8, 64)
    (job.model.doubleBlocks, job.model.singleBlocks) = (8, 16)
    job.batch.samples = 1
    (job.model.recompute, job.model.offload) = (true, offload)
    job.evaluate.batch = 1
    return try costs(of: job, shape).processes(limit: Self.cap).allSatisfy {
      $0.byteCount <= Self.cap
    }
  }

  private static let cap = 16 << 30
  /// The most frames that fit on one rank, found by bisection: with blocks recomputed, and their inputs in a file
  /// besides.
  private static let (recomputed, offloaded) = (117, 196)

  @Test func `offload takes half as many tokens more, and eight ranks six times as many`() throws {
    #expect(try fits(frames: Self.recomputed, offload: false))
    #expect(try !fits(frames: Self.recomputed + 1, offload: false))
    #expect(try fits(frames: Self.offloaded, offload: true))
    #expect(try !fits(frames: Self.offloaded + 1, offload: true))
    // Targets: 1.42 and 6.0.
    let more = (142 * Self.recomputed + 99) / 100
    #expect(try fits(frames: more, offload: true))
    let shape = MeshShape([.sp: 8], zeroStage: .parameters)
    #expect(try fits(frames: 6 * Self.offloaded, offload: true, shape))
  }
}
