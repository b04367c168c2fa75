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
    func exchange(along axes: Axis...) throws -> TokenExchange {
      let exchange = TokenExchange(
        transport: try transport.part(shape.group(along: axes, of: transport.rank)),
        overlaps: overlaps && axes == [.sp])
      exchanges.append(exchange)
      return exchange
    }
    let sharing = [Axis.sp, .tp].filter { shape[$0] > 1 }
    let own = try Dictionary(uniqueKeysWithValues: sharing.map { ($0, try exchange(along: $0)) })
    // Who shares tokens, and cuts weights, where sums are to have the bits of one rank.
    var canonical: CanonicalTokens<Float>?
    if mesh.sums == .canonical {
      let all = sharing.count == 2 ? try exchange(along: .sp, .tp) : own.values.first
      canonical =
        all.map { CanonicalTokens($0, tensorDegree: shape[.tp], attempt: attempt) }
        ?? CanonicalTokens()
    }
    if shape[.ring] > 1 {
      sequence = RingSequence(try exchange(along: .ring), attempt: attempt)
    }
    if let exchange = own[.sp] {
      sequence = UlyssesSequence(
        exchange, inside: sequence, plan: mesh.sequencePlan, canonical: canonical,
        attempt: attempt)
    }
    if let exchange = own[.tp] {
      sequence = TensorSequence(
        exchange, inside: sequence, canonical: canonical, attempt: attempt)
    }
    if canonical != nil && sharing.isEmpty && shape[.stages] == 1 { sequence = WholeSequence() }
    if shape[.stages] > 1 {
      let states = StageExchange(
        transport: try transport.part(shape.group(along: .stages, of: transport.rank)))
      let stage = StagedSequence<Float>(
        states, around: sequence, canonical: canonical, attempt: attempt)
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
