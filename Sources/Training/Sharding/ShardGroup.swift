// The ranks that share the state of networks among them, by which stage of ZeRO, and the replicas of it.

package import Autodiff
import DenseKernels
package import Exchange
package import MeshLayout
package import ProcessMesh
package import Tensors

/// What a network needs to know of the ranks that hold it together.
package struct ShardGroup {
  /// The ranks among which a replica of the state is sharded.
  package let transport: any Transport
  package let exchange: BucketExchange
  /// Those that own the same of every replica; nil where there is one replica.
  package let replicas: BucketExchange?
  package let arena: Arena
  /// One rank shares nothing: it has stage 1.
  package let stage: ZeroStage
  /// Runs what may fail in the middle of a pass, and keeps the failure for the next agreement.
  package let attempt: (() throws -> Void) -> Void

  package init(
    transport: any Transport, exchange: BucketExchange, replicas: BucketExchange? = nil,
    arena: Arena, stage: ZeroStage = .optimizer, attempt: @escaping (() throws -> Void) -> Void
  ) {
    self.transport = transport
    self.exchange = exchange
    self.replicas = replicas
    self.arena = arena
    self.stage = transport.size == 1 ? .optimizer : stage
    self.attempt = attempt
  }

  /// A network's parameters, zeroed: whole, or this rank's shard at stage 3.
  package func parameters(
    _ specifications: [ParameterSpecification], role: MemoryRole
  ) -> ParameterSet<Float> {
    guard Self.stage(stage, of: FlatLayout(specifications)) == .parameters else {
      return ParameterSet(specifications, in: arena, role: role)
    }
    return ParameterSet(
      specifications, in: arena, role: role,
      source: ParameterShard(FlatLayout(specifications), role: role, group: self))
  }

  /// A network without blocks is small, and is never brought in by parts.
  static func stage(_ stage: ZeroStage, of layout: FlatLayout) -> ZeroStage {
    layout.units.count > 1 ? stage : min(stage, .gradients)
  }

  /// Who owns what: at stage 1 contiguous ranges of the whole vector, later a part of each unit.
  func sharding(of layout: FlatLayout) -> UnitSharding {
    UnitSharding(
      units: stage == .optimizer ? [0..<layout.count] : layout.units.map(\.range),
      shardCount: transport.size)
  }
}

/// This rank's elements of a network, of which no rank holds all.
/// - Source: ZeRO (1910.02054) stage 3; PyTorch FSDP (2304.11277) §3.
final class ParameterShard: UnitSource {
  let elements: Buffer<Float>
  private let sharding: UnitSharding
  private let stretches: [UnitSharding.Stretch]
  private let group: ShardGroup

  init(_ layout: FlatLayout, role: MemoryRole, group: ShardGroup) {
    self.group = group
    sharding = group.sharding(of: layout)
    stretches = sharding.stretches(of: group.transport.rank)
    elements = group.arena.allocate(
      Float.self, count: sharding.count(of: group.transport.rank),
      booking: Booking(role, .parameters), zeroed: true)
  }

  /// - Collective: over the group.
  func load(_ unit: Int, into target: Buffer<Float>) {
    group.attempt {
      try group.exchange.allGather(
        elements[stretches[unit].local], partition: sharding.partitions[unit], into: target,
        kind: .parameters)
    }
  }

  func keep(_ unit: Int, _ source: Buffer<Float>) {
    let origin = sharding.units[unit].lowerBound
    let own = stretches[unit].flat
    elements[stretches[unit].local]
      .copy(from: source[own.lowerBound - origin..<own.upperBound - origin])
  }
}
