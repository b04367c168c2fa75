// A network's parameters with the part of them that this rank owns: what an optimizer updates, what a
// checkpoint saves, and how the others come to know it.

package import Autodiff
package import DenseKernels
import Exchange
package import MeshLayout
import ProcessMesh
import Tensors

package struct ShardedParameters {
  package let parameters: ParameterSet<Float>
  /// What is sharded of this network.
  package let stage: ZeroStage
  package let sharding: UnitSharding
  /// What this rank owns, unit by unit.
  package let stretches: [UnitSharding.Stretch]
  package let group: ShardGroup
  /// Own elements, where no rank holds all.
  private let shard: ParameterShard?

  /// - Precondition: a set that is not whole came from `group.parameters`.
  package init(_ parameters: ParameterSet<Float>, group: ShardGroup) {
    self.parameters = parameters
    self.group = group
    stage = group.stage(of: parameters.layout)
    sharding = group.sharding(of: parameters.layout)
    stretches = sharding.stretches(of: group.transport.rank)
    shard = parameters.source as? ParameterShard
  }

  /// Elements that this rank owns.
  package var ownCount: Int { sharding.count(of: group.transport.rank) }

  /// All elements that this rank holds: the flat vector, or its shard.
  package var held: Buffer<Float> { shard?.elements ?? parameters.values }

  /// Where a stretch of own elements lies.
  package func own(_ stretch: UnitSharding.Stretch) -> Buffer<Float> {
    shard.map { $0.elements[stretch.local] } ?? parameters.values[stretch.flat]
  }

  /// Takes the elements of a network of the same layout.
  package func copy(from other: ShardedParameters) {
    held.copy(from: other.held)
    parameters.dropUnits()
  }

  /// A buffer as long as this rank's shard.
  func shardBuffer(_ category: MemoryCategory) -> Buffer<Float> {
    group.arena.allocate(
      Float.self, count: ownCount, booking: Booking(parameters.role, category))
  }

  /// Own elements, copied.
  func copyOwn(into target: Buffer<Float>) {
    for stretch in stretches { target[stretch.local].copy(from: own(stretch)) }
  }

  /// Sums the flat gradients of all ranks; each gets its own part.
  /// - Collective: over the group.
  func reduceScatter(_ flat: Buffer<Float>, into target: Buffer<Float>) throws {
    for stretch in stretches {
      try group.exchange.reduceScatter(
        flat[sharding.units[stretch.unit]], partition: sharding.partitions[stretch.unit],
        into: target[stretch.local])
    }
  }

  /// The same for one unit.
  /// - Parameter gradient: of the unit, or of what this rank computes with; nil stands for zero on all ranks.
  /// - Collective: over the group, or the ranks of the pipeline stage that runs the unit.
  func reduceScatter(
    unit: Int, _ gradient: Buffer<Float>?, into target: Buffer<Float>
  ) throws {
    let own = target[stretches[unit].local]
    guard let gradient else { return own.clear() }
    if let shard, group.tensorDegree > 1 {
      return try (group.pipelineStage ?? group.exchange)
        .reducePart(of: shard.slicedUnits[unit], gradient, into: own)
    }
    if let stage = group.pipelineStage {
      return try stage.reduceScatter(
        gradient, partition: sharding.partitions[unit].amongOwners, into: own)
    }
    try group.exchange.reduceScatter(
      gradient, partition: sharding.partitions[unit], into: own)
  }

  /// Own gradients, summed over replicas. These are the highest levels of the tree.
  /// - Collective: over the replicas.
  func sumOverReplicas(_ gradient: Buffer<Float>) throws {
    guard let replicas = group.replicas else { return }
    let partition = ShardPartition(count: gradient.count, shardCount: replicas.transport.size)
    let part = group.arena.allocate(
      Float.self, count: partition.range(of: replicas.transport.rank).count,
      booking: Booking(parameters.role, .exchange))
    try replicas.reduceScatter(gradient, partition: partition, into: part)
    try replicas.allGather(part, partition: partition, into: gradient, kind: .gradients)
  }

  /// The part of a stretch that this rank saves: replicas hold the same, and share the writing.
  func saved(_ stretch: UnitSharding.Stretch) -> Range<Int> {
    guard let transport = group.replicas?.transport else { return stretch.flat }
    let part = evenRange(of: stretch.flat.count, part: transport.rank, partCount: transport.size)
    return stretch.flat.lowerBound + part.lowerBound..<stretch.flat.lowerBound + part.upperBound
  }

  /// Makes own elements known to whoever holds them.
  /// - Parameter isUpdate: whether they differ little from what all ranks hold.
  /// - Collective: over the ranks of a replica.
  func publish(_ own: Buffer<Float>, kind: TrafficKind, isUpdate: Bool) throws {
    parameters.dropUnits()
    if let shard { return shard.elements.copy(from: own) }
    for stretch in stretches {
      try group.exchange.allGather(
        own[stretch.local], partition: sharding.partitions[stretch.unit],
        into: parameters.values[sharding.units[stretch.unit]], kind: kind, flatIsBase: isUpdate)
    }
  }
}
