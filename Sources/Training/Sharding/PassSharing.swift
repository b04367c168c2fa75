// How the ranks of a set compute a pass of a network together: which of them share the tokens of a microbatch, cut
// the weights of blocks, or run other blocks.

import Exchange
import MeshLayout
import Models
import ProcessMesh

final class PassSharing {
  /// Who shares the tokens of this rank's microbatches, or the blocks of networks; nil where it has them to
  /// itself.
  let sequence: (any SequenceParallel<Float>)?
  /// Keeps microbatches in flight; nil where there is one stage.
  let pipeline: Pipeline?
  /// What moves activations: by the ring, by all-to-all, and between ranks that cut weights.
  private let tokenExchanges: [TokenExchange]
  /// Between the stages of this rank's pipeline.
  private let stageExchange: StageExchange?

  /// Nobody computes with this rank.
  init() {
    (sequence, pipeline, tokenExchanges, stageExchange) = (nil, nil, [], nil)
  }

  /// - Parameters:
  ///   - overlaps: whether tokens travel while something is computed.
  ///   - attempt: runs an exchange in the middle of a pass.
  /// - Collective: over the transport; the shape and the mesh must agree.
  init(
    _ transport: any Transport, shape: MeshShape, mesh: RunConfiguration.Mesh, overlaps: Bool,
    attempt: @escaping (() throws -> Void) -> Void
  ) throws {
    var sequence: (any SequenceParallel<Float>)?
    var exchanges: [TokenExchange] = []
    func exchange(along axis: Axis) throws -> TokenExchange {
      let exchange = TokenExchange(
        transport: try transport.part(shape.group(along: axis, of: transport.rank)),
        overlaps: overlaps && axis == .sp)
      exchanges.append(exchange)
      return exchange
    }
    if shape[.ring] > 1 {
      sequence = RingSequence(try exchange(along: .ring), attempt: attempt)
    }
    if shape[.sp] > 1 {
      sequence = UlyssesSequence(
        try exchange(along: .sp), inside: sequence, plan: mesh.sequencePlan,
        isCanonical: mesh.sums == .canonical, attempt: attempt)
    } else if mesh.sums == .canonical && shape[.stages] == 1 {
      sequence = WholeSequence()
    }
    if shape[.tp] > 1 {
      sequence = TensorSequence(try exchange(along: .tp), inside: sequence, attempt: attempt)
    }
    if shape[.stages] > 1 {
      let states = StageExchange(
        transport: try transport.part(shape.group(along: .stages, of: transport.rank)))
      let stage = StagedSequence<Float>(
        states, around: sequence,
        canonical: mesh.sums == .canonical ? CanonicalTokens(nil) : nil, attempt: attempt)
      (self.sequence, stageExchange) = (stage, states)
      pipeline = Pipeline(
        stage, schedule: mesh.schedule.planned, adopt: { transport.adoptThread() })
    } else {
      (self.sequence, stageExchange, pipeline) = (sequence, nil, nil)
    }
    tokenExchanges = exchanges
  }

  /// Whether anything goes on beside the computation.
  var hasWorkBeside: Bool { tokenExchanges.contains { $0.hasWorkBeside } }

  /// Moves on what goes on beside the computation.
  func advance() throws { for exchange in tokenExchanges { try exchange.advance() } }

  /// What this rank has sent in passes since the last call.
  func takeStatistics() -> ExchangeStatistics {
    var sent = stageExchange?.statistics.take() ?? ExchangeStatistics()
    for exchange in tokenExchanges { sent += exchange.statistics.take() }
    return sent
  }
}
