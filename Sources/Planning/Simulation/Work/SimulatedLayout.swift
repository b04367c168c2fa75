// A layout of ranks as the simulation knows it, and how its groups lie over nodes.
//
// Ranks are numbered as in the mesh: tp fastest, then sp, ring, zero, dp, stages slowest. The ranks of zero × ring ×
// sp × tp share optimizer state (and what else the ZeRO stage says); dp repeats that over groups (hybrid
// sharding). Where roles are split, either set of ranks is a layout of its own.

package import MeshLayout

package struct SimulatedLayout: Equatable, Hashable, Sendable, CustomStringConvertible {
  package var shape: MeshShape
  package var schedule: PipelineSchedule
  /// Whether gathers and sums of blocks run beside computing, one block ahead, at ZeRO stages 2 and 3.
  package var overlaps: Bool
  package var ranksPerNode: Int

  package init(
    shape: MeshShape, schedule: PipelineSchedule = .oneForwardOneBackward,
    overlaps: Bool = false, ranksPerNode: Int
  ) {
    self.shape = shape
    self.schedule = schedule
    self.overlaps = overlaps
    self.ranksPerNode = ranksPerNode
  }

  package var rankCount: Int { shape.rankCount }
  package var stageCount: Int { shape[.stages] }
  package var zeroStage: ZeroStage { shape.zeroStage }
  /// Ranks over which microbatches are spread.
  package var dataDegree: Int { shape.dataParallelDegree }
  package var nodeCount: Int { (rankCount + ranksPerNode - 1) / ranksPerNode }
  /// Ranks that talk over the link of a node at once.
  package var ranksOnNode: Int { min(ranksPerNode, rankCount) }

  /// Parts of the tokens of a microbatch, each of which those who cut weights together have.
  package var tokenDegree: Int { shape[.ring] * shape[.sp] }
  /// Ranks that compute a microbatch together.
  package var microbatchRankCount: Int { stageCount * shape.sequenceDegree }
  /// Ranks that share the state of a stage.
  package var shardCount: Int { shape[.zero] * shape.sequenceDegree }

  package var tensorGroup: RankGroup { group(size: shape[.tp], stride: 1) }
  package var sequenceGroup: RankGroup { group(size: shape[.sp], stride: shape[.tp]) }
  /// All that have tokens of a microbatch.
  package var tokenGroup: RankGroup { group(size: shape.sequenceDegree, stride: 1) }
  package var ringGroup: RankGroup {
    group(size: shape[.ring], stride: shape[.tp] * shape[.sp])
  }
  package var shardGroup: RankGroup { group(size: shardCount, stride: 1) }
  package var replicaGroup: RankGroup { group(size: shape[.dp], stride: shardCount) }

  /// The ranks of a role, where roles are split, as a layout.
  package func layout(of role: RankRole) -> SimulatedLayout {
    guard let generatorRanks = shape.generatorRanks else { return self }
    var layout = self
    layout.shape = role == .score ? shape.scoreShape : generatorRanks.shape
    return layout
  }

  /// What all ranks run together while the generator is not distilled.
  package var withoutRoles: SimulatedLayout {
    var layout = self
    layout.shape.generatorRanks = nil
    return layout
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
    if stageCount > 1 || shape.generatorRanks.map({ $0.shape[.stages] > 1 }) ?? false {
      text += ", \(schedule)"
    }
    if overlaps { text += ", overlapped" }
    return text
  }

  /// Grows with the kinds of parallelism that it needs; the dearest to build weigh most.
  package var complexity: Int {
    let parts = [
      (stageCount > 1, 8), (shape[.tp] > 1, 4), (shape.generatorRanks != nil, 4),
      (shape[.ring] > 1, 2), (shape[.dp] > 1, 1),
    ]
    return parts.reduce(0) { $0 + ($1.0 ? $1.1 : 0) }
  }
}
