// Ranks that hold networks together and share the microbatches of a step: all ranks of a run, or those of
// one role where roles are split.

import Basics
import DenseKernels
package import Exchange
package import MeshLayout
package import ProcessMesh
package import Tensors

package final class RankSet {
  /// Of this set alone.
  package let transport: any Transport
  package let shape: MeshShape
  /// Among the ranks that shard a replica of the networks' state.
  package let exchange: BucketExchange
  /// Among those that own the same of every replica; nil where there is one replica.
  let replicas: BucketExchange?
  /// Which data-parallel ranks compute which microbatches of every step.
  private let share: MicrobatchShare
  /// The microbatches of every step that this rank computes, in order.
  package let microbatches: [Int]

  /// - Throws: `MeshLayoutError` when the microbatches do not go round.
  /// - Collective: over the transport; all arguments but the arena must agree.
  package init(
    _ transport: any Transport, shape: MeshShape, microbatchCount: Int,
    configuration: ExchangeConfiguration, arena: Arena
  ) throws {
    require(
      shape.rankCount == transport.size, "a mesh of \(shape) for \(transport.size) ranks")
    self.transport = transport
    self.shape = shape
    func bucketExchange(_ transport: any Transport) -> BucketExchange {
      BucketExchange(
        transport: transport, configuration: configuration,
        allocate: { count in
          arena.allocate(Float.self, count: count, booking: Booking(.common, .exchange))
        })
    }
    // `dp`, `zero`, `ring`, `sp` and `tp` are placed, from the slowest to the fastest.
    let replicaSize = transport.size / shape[.dp]
    let (replica, place) = transport.rank.quotientAndRemainder(dividingBy: replicaSize)
    if shape[.dp] > 1 {
      exchange = bucketExchange(try transport.split(color: replica, key: transport.rank))
      replicas = bucketExchange(try transport.split(color: place, key: transport.rank))
    } else {
      exchange = bucketExchange(transport)
      replicas = nil
    }
    share = try shape.share(of: microbatchCount)
    microbatches = share.microbatches(of: transport.rank / shape.sequenceDegree)
  }

  /// Those that hold a network together.
  /// - Parameter attempt: runs an exchange in the middle of a pass.
  func shardGroup(
    in arena: Arena, attempt: @escaping (() throws -> Void) -> Void
  ) -> ShardGroup {
    ShardGroup(
      transport: exchange.transport, exchange: exchange, replicas: replicas, arena: arena,
      stage: shape.zeroStage, tensorDegree: shape[.tp], attempt: attempt)
  }

  /// Microbatches that are computed at the same time as this one by ranks that load blocks together.
  func peers(of microbatch: Int) -> [Int] {
    shape.zeroStage == .parameters ? share.round(of: microbatch) : [microbatch]
  }

  /// What this rank has sent in the set since the last call.
  func takeStatistics() -> ExchangeStatistics {
    var sent = exchange.statistics.take()
    if let replicas { sent += replicas.statistics.take() }
    return sent
  }
}
