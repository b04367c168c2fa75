import MeshLayout

/// Where a rank stands among those that hold the networks.
struct RankPlace: Hashable {
  /// Among those that shard a replica.
  let rank: Int
  let rankCount: Int
  let replica: Int
  let replicaCount: Int
  let zeroStage: ZeroStage
  /// Stages of a pipeline.
  let stageCount: Int

  init(rank: Int, shape: MeshShape) {
    let coordinates = shape.coordinates(of: rank)
    replicaCount = shape[.dp]
    replica = coordinates[.dp, default: 0]
    rankCount = shape.rankCount / replicaCount
    stageCount = shape[.stages]
    // Stages are neighbors.
    let stageSize = rankCount / stageCount
    self.rank = coordinates[.stages, default: 0] * stageSize + rank % stageSize
    zeroStage = rankCount == 1 ? .optimizer : shape.zeroStage
  }

  /// Ranks of a replica that run one stage.
  var stageSize: Int { rankCount / stageCount }
}
