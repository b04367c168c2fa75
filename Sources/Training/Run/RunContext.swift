// What every phase of a run is given: who we are, where things go, and how a step is agreed on.

package import Autodiff
import Basics
package import DenseKernels
package import Exchange
import Foundation
package import MeshLayout
package import Models
import Planning
package import ProcessMesh
package import Tensors
import VideoData

/// One rank's view of a run.
package final class RunContext {
  /// With the precision that the run has, see `settle`.
  package private(set) var configuration: RunConfiguration
  package let folder: RunFolder
  package let transport: any Transport
  package let arena: Arena
  /// All ranks, as they hold the networks together.
  package let ranks: RankSet
  /// Those of this rank's role, and what its samples and gradients travel by, where roles are split.
  private var roles: RoleRanks?
  /// What the axes of the mesh are.
  package let shape: MeshShape
  /// The ranks that share the tokens of this rank's microbatches, or the blocks of networks; nil where it has them to
  /// itself.
  package private(set) var sequence: (any SequenceParallel<Float>)?
  /// How the networks' products read their operands, the same on all ranks.
  package private(set) var precision: ProductPrecision
  /// Whether every rank's CPU multiplies bfloat16 itself.
  package let multipliesBFloat16: Bool
  /// Talks to the user and to the files of the run; silent on ranks other than 0.
  package let reporter: Reporter
  /// Whether somebody asked this rank to stop; a parameter, so that tests can ask.
  let isStopRequested: () -> Bool
  /// Whether W and the generator are kept packed where products read bfloat16.
  private let keepsPackedWeights: Bool
  /// Between the stages of this rank's pipeline.
  private var stageExchange: StageExchange?
  /// Keeps microbatches in flight; nil where there is one stage.
  private(set) var pipeline: Pipeline?
  /// What moves activations: by the ring, by all-to-all, and between ranks that cut weights.
  private var tokenExchanges: [TokenExchange] = []
  /// Where activations are kept outside of memory.
  private var activationStore: FileActivationStore<Float>?
  /// What this rank failed at by itself; see `attempt`.
  private var failure: JobError?
  /// What this rank failed at in an exchange in a pass: the job is ending.
  private var abandonment: (any Error)?
  /// What all ranks have sent since the last `takeTraffic()`.
  private var traffic = ExchangeStatistics()
  private var skips = SkippedUpdates()

  /// - Parameters:
  ///   - shape: the mesh of the transport's ranks; nil: all of them share the microbatches.
  ///   - keepsPackedWeights: what the plan says.
  /// - Throws: `MeshLayoutError` when there are more data-parallel ranks than microbatches.
  /// - Collective: over the transport; the shape must agree.
  package init(
    configuration: RunConfiguration, folder: RunFolder, transport: any Transport,
    shape: MeshShape? = nil, keepsPackedWeights: Bool = false, reporter: Reporter,
    isStopRequested: @escaping () -> Bool = { StopSignal.isReceived }
  ) throws {
    self.configuration = configuration
    self.folder = folder
    self.transport = transport
    self.reporter = reporter
    self.isStopRequested = isStopRequested
    self.keepsPackedWeights = keepsPackedWeights
    let arena = Arena()
    self.arena = arena
    let shape = shape ?? MeshShape([.zero: transport.size])
    self.shape = shape
    ranks = try RankSet(
      transport, shape: shape, microbatchCount: configuration.batch.microbatches,
      configuration: configuration.exchange, arena: arena)
    multipliesBFloat16 = try transport.allGather(value: ProductPrecision.bfloat16.isFast)
      .allSatisfy(\.self)
    precision = .float32
    settle(
      try PrecisionRule.resolve(
        configuration.compute.precision, made: nil, isFast: multipliesBFloat16))
    if shape[.ring] > 1 {
      sequence = RingSequence(try tokenExchange(along: .ring)) { [unowned self] in
        exchangeInPass($0)
      }
    }
    if shape[.sp] > 1 {
      sequence = UlyssesSequence(
        try tokenExchange(along: .sp), inside: sequence, plan: configuration.mesh.sequencePlan
      ) { [unowned self] in exchangeInPass($0) }
    }
    if shape[.tp] > 1 {
      sequence = TensorSequence(try tokenExchange(along: .tp), inside: sequence) {
        [unowned self] in exchangeInPass($0)
      }
    }
    if shape[.stages] > 1 {
      let states = StageExchange(
        transport: try transport.part(shape.group(along: .stages, of: transport.rank)))
      stageExchange = states
      let stage = StagedSequence<Float>(states) { [unowned self] in exchangeInPass($0) }
      sequence = stage
      pipeline = Pipeline(
        stage, schedule: configuration.mesh.schedule.planned,
        adopt: { transport.adoptThread() })
    }
  }

  /// - Collective: over the transport.
  private func tokenExchange(along axis: Axis) throws -> TokenExchange {
    let group = shape.group(along: axis, of: transport.rank)
    let exchange = TokenExchange(
      transport: try transport.split(color: group[0], key: transport.rank))
    tokenExchanges.append(exchange)
    return exchange
  }

  /// Sets the precision of the run, fp32 or bf16, before the first pass of a network.
  func settle(_ choice: RunConfiguration.PrecisionChoice) {
    require(choice != .auto, "a run has a precision of its own")
    configuration.compute.precision = choice
    precision = choice == .bf16 ? .bfloat16 : .float32
  }

  /// Among the ranks that shard a replica of the networks' state.
  package var exchange: BucketExchange { ranks.exchange }
  /// The microbatches of every step that this rank computes where all ranks train together, in order.
  package var microbatches: [Int] { ranks.microbatches }

  /// The ranks that hold the networks together.
  package var shardGroup: ShardGroup { shardGroup(of: ranks) }

  func shardGroup(of set: RankSet) -> ShardGroup {
    set.shardGroup(in: arena) { [unowned self] body in exchangeInPass(body) }
  }

  /// A network's parameters, zeroed: whole, or this rank's shard.
  package func parameters(
    _ specifications: [ParameterSpecification], role: MemoryRole
  ) -> ParameterSet<Float> {
    makeParameters(specifications, role: role, in: ranks)
  }

  /// The same among the ranks of a set.
  func makeParameters(
    _ specifications: [ParameterSpecification], role: MemoryRole, in set: RankSet
  ) -> ParameterSet<Float> {
    let parameters = shardGroup(of: set).parameters(specifications, role: role)
    // The fake DiT's own are its adapter's: small, and changed in every step.
    if keepsPackedWeights && precision == .bfloat16 && role != .fake {
      parameters.keepPackedWeights()
    }
    return parameters
  }

  /// A network's parameters with the part of them that this rank owns.
  package func weights(_ parameters: ParameterSet<Float>) -> ShardedParameters {
    weights(parameters, in: ranks)
  }

  func weights(_ parameters: ParameterSet<Float>, in set: RankSet) -> ShardedParameters {
    ShardedParameters(parameters, group: shardGroup(of: set))
  }

  /// Cuts the ranks into those of the roles, where the mesh splits them; nil where all have all roles.
  /// - Collective: over the transport, the first time.
  func splitRoles() throws -> RoleRanks? {
    if roles == nil, let places = try shape.roles(of: configuration.batch.microbatches) {
      roles = try RoleRanks(places, context: self)
    }
    return roles
  }

  /// A tape for one pass of a network.
  package func tape(_ role: MemoryRole, isRecording: Bool = true) -> Tape<Float> {
    Tape(
      arena: arena, role: role, precision: precision, isRecording: isRecording,
      store: isRecording ? activationStore : nil)
  }

  /// Opens the file that activations are kept in, where the configuration asks for it.
  /// - Throws: `JobError` where its folder cannot be written on some rank.
  /// - Collective: over the transport.
  package func openActivationStore() throws {
    guard configuration.model.offload else { return }
    let name = configuration.model.offloadFolder
    let place = name.isEmpty ? folder.url : URL(filePath: name)
    activationStore = try transport.onEveryRank {
      do {
        return try FileActivationStore(in: place, arena: arena) { [unowned self] in attempt($0) }
      } catch {
        throw ConfigurationError([
          ConfigurationProblem(
            "model.offloadFolder",
            "\(place.path) cannot hold a file: \(words(of: error)); name a folder that every rank can "
              + "write")
        ])
      }
    }
  }

  package var seed: UInt64 { UInt64(configuration.seed) }

  /// Samples of a step over all ranks.
  package var batchSize: Int { configuration.batch.microbatches * configuration.batch.samples }

  /// What all ranks know after a step.
  package struct StepAgreement: Sendable {
    /// Loss of each microbatch, in order.
    package let losses: [Double]
    /// Further numbers of each microbatch by name, in the same order.
    package let readings: [String: [Double]]
    /// What became of the step's updates, by network, as the ranks that made them tell.
    package let outcomes: [String: StepOutcome]
    package let shouldStop: Bool
    /// Resident memory at its peak, summed over ranks.
    package let peakByteCount: Int

    /// The mean in the fixed tree, the same bits on any number of ranks.
    package var meanLoss: Double { Self.sum(losses) / Double(max(losses.count, 1)) }

    /// The sum of a reading over all microbatches, in the fixed tree; 0 where there is none.
    package func sum(of name: String) -> Double { Self.sum(readings[name] ?? []) }

    /// The mean of a reading over all microbatches, in the fixed tree; 0 where there is none.
    package func mean(of name: String) -> Double {
      sum(of: name) / Double(max(readings[name]?.count ?? 0, 1))
    }

    private static func sum(_ values: [Double]) -> Double { treeReduce(values, combine: +) ?? 0 }
  }

  /// Whether this rank speaks for its microbatches; others may have computed them with it.
  private var isSpeaker: Bool {
    let stageSize = transport.size / shape[.stages]
    return transport.rank < stageSize && transport.rank % shape.sequenceDegree == 0
  }

  /// What this rank has sent since the last call.
  private func takeOwnTraffic() -> ExchangeStatistics {
    var sent = ranks.takeStatistics()
    if let roles { sent += roles.takeStatistics() }
    if let stageExchange { sent += stageExchange.statistics.take() }
    for exchange in tokenExchanges { sent += exchange.statistics.take() }
    return sent
  }

  /// Joins the losses and other numbers of all microbatches, and the wishes to stop.
  /// - Parameters:
  ///   - losses: of this rank's microbatches, in order.
  ///   - readings: further numbers of them by name, in the same order.
  ///   - outcomes: updates that this rank took part in, by network.
  ///   - microbatches: those that the numbers belong to; nil: those of all ranks training together.
  /// - Throws: `JobError`, on every rank, what any rank's `attempt` has failed at.
  /// - Collective: over the transport, once a turn.
  package func agreeOnStep(
    losses: [Double], readings: [String: [Double]] = [:], outcomes: [String: StepOutcome] = [:],
    of microbatches: [Int]? = nil
  ) throws -> StepAgreement {
    if let abandonment { throw abandonment }
    let reports = try transport.allGather(
      value: StepReport(
        microbatches: microbatches ?? self.microbatches,
        lossBits: isSpeaker ? losses.map(\.bitPattern) : [],
        readingBits: readings.mapValues { isSpeaker ? $0.map(\.bitPattern) : [] },
        outcomes: outcomes,
        wantsStop: isStopRequested(),
        peakByteCount: ResourceUsage.current()?.peakByteCount ?? 0,
        traffic: takeOwnTraffic(), failure: failure))
    reports.forEach { traffic += $0.traffic }
    if let failure = reports.lazy.compactMap(\.failure).first { throw failure }
    let names = reports.reduce(into: Set()) { $0.formUnion($1.readingBits.keys) }
    return StepAgreement(
      losses: Self.inOrder(reports.map { ($0.microbatches, $0.lossBits) }),
      readings: Dictionary(
        uniqueKeysWithValues: names.map { name in
          (name, Self.inOrder(reports.map { ($0.microbatches, $0.readingBits[name] ?? []) }))
        }),
      outcomes: reports.reduce(into: [:]) { $0.merge($1.outcomes) { first, _ in first } },
      shouldStop: reports.contains(where: \.wantsStop),
      peakByteCount: reports.reduce(0) { $0 + $1.peakByteCount })
  }

  /// The numbers of all microbatches in their order, given those of each rank in its order.
  private static func inOrder(_ parts: [(microbatches: [Int], bits: [UInt64])]) -> [Double] {
    parts.flatMap { Array(zip($0.microbatches, $0.bits)) }.sorted { $0.0 < $1.0 }
      .map { Double(bitPattern: $0.1) }
  }

  /// Tells all ranks what each has sent since the last agreement.
  /// - Collective: over the transport.
  func joinTraffic() throws {
    try transport.allGather(value: takeOwnTraffic()).forEach { traffic += $0 }
  }

  /// What all ranks have sent since the last call, as far as agreements told.
  func takeTraffic() -> ExchangeStatistics { traffic.take() }

  /// Whether the last update of some network was left out because its gradient was not finite.
  var isSkipping: Bool { skips.isSkipping }

  /// Takes note of an update, which all ranks know alike: says when the first in a row is left out.
  /// - Throws: `JobError`, on every rank, when too many in a row are.
  func note(_ outcome: StepOutcome, of network: String, in phase: String, step: Int) throws {
    if let word = try skips.note(outcome, of: network, in: phase, step: step) {
      reporter.say(word)
    }
  }

  /// Does what this rank does alone, between collectives. All ranks hear of a failure at the next
  /// agreement, or before the next checkpoint, so that none counts a step that is not written down.
  func attempt(_ body: () throws -> Void) {
    guard failure == nil else { return }
    do { try body() } catch { failure = JobError(error) }
  }

  /// Does what other ranks take part in, in the middle of a pass, which cannot throw. A rank that fails at it
  /// is out of step with the others, who would wait for it: it ends the job for all.
  func exchangeInPass(_ body: () throws -> Void) {
    guard abandonment == nil else { return }
    do {
      try body()
    } catch {
      abandonment = error
      transport.abandon(error)
    }
  }

  /// - Throws: `JobError`, on every rank, what an `attempt` of any rank has failed at.
  /// - Collective: over the transport.
  func throwSharedFailure() throws {
    if let abandonment { throw abandonment }
    let failures = try transport.allGather(value: failure)
    if let failure = failures.lazy.compactMap(\.self).first { throw failure }
  }

  /// - Throws: what an `attempt` of this rank has failed at.
  func throwFailure() throws {
    if let failure { throw failure }
  }

  /// Leaves, on all ranks, when any was asked to stop. What was finished is on the disk.
  /// - Collective: over the transport.
  func stopIfAsked() throws {
    if try agreeOnStep(losses: []).shouldStop { throw StoppedOnSignal() }
  }

  /// Does `count` pieces of work, piece i on rank i mod size, ready to stop after each round.
  ///
  /// Where passes load blocks from all ranks, all take part in each round: a rank that has nothing left
  /// does the last piece once more.
  /// - Returns: the results of this rank, in order.
  /// - Collective: over the transport; `body` must not call collectives other than those of passes, of
  ///   which every piece has as many.
  func shareOut<Result>(_ count: Int, _ body: (_ piece: Int) -> Result) throws -> [Result] {
    var results: [Result] = []
    for first in stride(from: 0, to: count, by: transport.size) {
      let piece = first + transport.rank
      if piece < count {
        results.append(body(piece))
      } else if shape.zeroStage == .parameters {
        _ = body(count - 1)
      }
      try stopIfAsked()
    }
    return results
  }

  private struct StepReport: Codable {
    let microbatches: [Int]
    let lossBits: [UInt64]
    let readingBits: [String: [UInt64]]
    let outcomes: [String: StepOutcome]
    let wantsStop: Bool
    let peakByteCount: Int
    let traffic: ExchangeStatistics
    let failure: JobError?
  }
}

/// All ranks saved and leave, to be started again.
package struct StoppedOnSignal: Error {
  package init() {}
}
