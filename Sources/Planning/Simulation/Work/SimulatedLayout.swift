// A layout of ranks as the simulation knows it, and how its groups lie over nodes.
//
// Ranks are numbered as in the mesh: tp fastest, then sp, ring, zero, dp, stages slowest. The ranks of zero × ring ×
// sp share optimizer state (and what else the ZeRO stage says); dp repeats that over groups (hybrid
// sharding).

package import MeshLayout

package struct SimulatedLayout: Equatable, Hashable, Sendable, CustomStringConvertible {
  package var shape: MeshShape
  /// 0: nothing is sharded, 1: optimizer state, 2: gradients too, 3: parameters too.
  package var zeroStage: Int
  package var schedule: PipelineSchedule
  /// Whether gathers and sums of blocks run beside computing, one block ahead.
  package var overlaps: Bool
  package var ranksPerNode: Int

  package init(
    shape: MeshShape, zeroStage: Int = 1, schedule: PipelineSchedule = .oneForwardOneBackward,
    overlaps: Bool = false, ranksPerNode: Int
  ) {
    self.shape = shape
    self.zeroStage = zeroStage
    self.schedule = schedule
    self.overlaps = overlaps
    self.ranksPerNode = ranksPerNode
  }

  package var rankCount: Int { shape.rankCount }
  package var stageCount: Int { shape[.stages] }
  /// Ranks over which microbatches are spread.
  package var dataDegree: Int { shape.dataParallelDegree }
  package var nodeCount: Int { (rankCount + ranksPerNode - 1) / ranksPerNode }
  /// Ranks that talk over the link of a node at once.
  package var ranksOnNode: Int { min(ranksPerNode, rankCount) }

  /// Ranks that share the tokens of a microbatch.
  package var tokenDegree: Int { shape[.ring] * shape[.sp] }
  /// Ranks that share optimizer state.
  package var shardCount: Int { shape[.zero] * tokenDegree }

  package var tensorGroup: RankGroup { group(size: shape[.tp], stride: 1) }
  package var sequenceGroup: RankGroup { group(size: shape[.sp], stride: shape[.tp]) }
  package var tokenGroup: RankGroup { group(size: tokenDegree, stride: shape[.tp]) }
  package var ringGroup: RankGroup {
    group(size: shape[.ring], stride: shape[.tp] * shape[.sp])
  }
  package var shardGroup: RankGroup { group(size: shardCount, stride: shape[.tp]) }
  package var replicaGroup: RankGroup {
    group(size: shape[.dp], stride: shape[.tp] * shardCount)
  }

  /// Whether the message from a stage to the next leaves the node.
  package func crossesNodes(fromStage stage: Int, to next: Int) -> Bool {
    let distance = rankCount / stageCount
    return stage * distance / ranksPerNode != next * distance / ranksPerNode
  }

  /// Members of a group lie `stride` ranks apart. Where nodes cut groups unevenly, the fewest members
  /// of a node that divide the size are taken, which costs a little more than the real placement.
  private func group(size: Int, stride: Int) -> RankGroup {
    let most = min(size, max(1, ranksPerNode / stride))
    return RankGroup(
      size: size, perNode: (1...most).last { size.isMultiple(of: $0) } ?? 1)
  }

  package var description: String {
    var text = shape.description
    if shardCount > 1 || zeroStage > 0 { text += ", ZeRO-\(zeroStage)" }
    if stageCount > 1 { text += ", \(schedule)" }
    if overlaps { text += ", overlapped" }
    return text
  }

  /// Grows with the kinds of parallelism that it needs; the dearest to build weigh most.
  package var complexity: Int {
    let parts = [
      (stageCount > 1, 8), (shape[.tp] > 1, 4), (shape[.ring] > 1, 2), (shape[.dp] > 1, 1),
    ]
    return parts.reduce(0) { $0 + ($1.0 ? $1.1 : 0) }
  }

  /// Whether the worker runs it today: replicas, ZeRO 1 to 3, Ulysses and ring, nothing overlapped. Where it cuts
  /// weights it shards its state over those ranks too, which is not what is simulated.
  package func runsToday(microbatchCount: Int) -> Bool {
    shape[.tp] == 1 && stageCount == 1 && !overlaps
      && (zeroStage <= 1 || microbatchCount.isMultiple(of: dataDegree))
  }
}
