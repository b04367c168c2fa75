// Ranks that hold networks together and share the microbatches of a step: all ranks of a run, or those of
// one role where roles are split.

import Basics
import DenseKernels
package import Exchange
package import MeshLayout
package import Models
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
  /// Among the ranks of this one's pipeline stage that shard a replica; nil where there is one stage.
  private let stageShards: BucketExchange?
  /// Lines of their own for what goes on beside the computation; empty where nothing does.
  private let besides: [BucketExchange]
  private let overlaps: Bool
  /// Which data-parallel ranks compute which microbatches of every step.
  private let share: MicrobatchShare
  /// The microbatches of every step that this rank computes, in order.
  package let microbatches: [Int]
  private var passes = PassSharing()

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
    func part(along axes: Axis...) throws -> BucketExchange {
      bucketExchange(try transport.part(shape.group(along: axes, of: transport.rank)))
    }
    if shape[.dp] > 1 {
      exchange = try part(along: .stages, .zero, .ring, .sp, .tp)
      replicas = try part(along: .dp)
    } else {
      exchange = bucketExchange(transport)
      replicas = nil
    }
    stageShards = shape[.stages] > 1 ? try part(along: .zero, .ring, .sp, .tp) : nil
    overlaps = configuration.overlap == .on
    let unitTransport = (stageShards ?? exchange).transport
    besides =
      overlaps && shape.zeroStage != .optimizer && unitTransport.size > 1
      ? try (0..<2).map { _ in
        bucketExchange(try unitTransport.split(color: 0, key: unitTransport.rank))
      } : []
    share = try shape.share(of: microbatchCount)
    microbatches = share.microbatches(of: shape.dataRank(of: transport.rank))
  }

  /// Those that hold a network together.
  /// - Parameter attempt: runs an exchange in the middle of a pass.
  func shardGroup(
    in arena: Arena, attempt: @escaping (() throws -> Void) -> Void
  ) -> ShardGroup {
    ShardGroup(
      transport: exchange.transport, exchange: exchange, replicas: replicas, arena: arena,
      stage: shape.zeroStage, tensorDegree: shape[.tp], pipelineStage: stageShards,
      loads: besides.first, sums: besides.last, attempt: attempt)
  }

  /// Whether anything goes on beside the computation.
  var hasWorkBeside: Bool { !besides.isEmpty || passes.hasWorkBeside }

  /// Moves on what goes on beside the computation.
  func advance() throws {
    for exchange in besides { try exchange.advance() }
    try passes.advance()
  }

  /// Waits for all of it.
  /// - Collective: over the ranks that run the same blocks.
  func finishWorkBeside() throws { for exchange in besides { try exchange.finishAll() } }

  /// Cuts the set into the ranks that compute passes together.
  /// - Parameter attempt: runs an exchange in the middle of a pass.
  /// - Collective: over the transport, once; the mesh must agree.
  func sharePasses(
    _ mesh: RunConfiguration.Mesh, attempt: @escaping (() throws -> Void) -> Void
  ) throws {
    passes = try PassSharing(
      transport, shape: shape, mesh: mesh, overlaps: overlaps, attempt: attempt)
  }

  /// Who shares the tokens of this rank's microbatches, or the blocks of networks; nil where it has them to
  /// itself.
  package var sequence: (any SequenceParallel<Float>)? { passes.sequence }
  /// Keeps microbatches in flight; nil where there is one stage.
  var pipeline: Pipeline? { passes.pipeline }
  /// Whether this rank speaks for its microbatches; others of the set may compute them with it.
  var isSpeaker: Bool {
    transport.rank < shape.rankCount / shape[.stages]
      && transport.rank % shape.sequenceDegree == 0
  }

  /// Microbatches that are computed at the same time as this one by ranks that load blocks together.
  func peers(of microbatch: Int) -> [Int] {
    shape.zeroStage == .parameters ? share.round(of: microbatch) : [microbatch]
  }

  /// What this rank has sent in the set since the last call.
  func takeStatistics() -> ExchangeStatistics {
    let exchanges = [exchange, replicas, stageShards].compactMap(\.self) + besides
    return exchanges.reduce(into: passes.takeStatistics()) { $0 += $1.statistics.take() }
  }
}

extension Transport {
  /// The endpoint of a group of these ranks, to which this one belongs.
  /// - Collective: over these ranks, each in one of the groups.
  func part(_ group: [Int]) throws -> any Transport {
    // The first rank of a group gives it its color.
    try split(color: group[0], key: rank)
  }
}
