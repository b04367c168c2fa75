// What every phase of a run is given: who we are, where things go, and who holds what. How ranks agree on a step:
// RunContext+Agreement.swift.

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
  var roles: RoleRanks?
  /// What the axes of the mesh are.
  package let shape: MeshShape
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
  /// Where activations are kept outside of memory.
  private var activationStore: FileActivationStore<Float>?
  /// What this rank failed at by itself; see `attempt`.
  var failure: JobError?
  /// What this rank failed at in an exchange in a pass: the job is ending.
  var abandonment: (any Error)?
  /// What all ranks have sent since the last `takeTraffic()`.
  var traffic = ExchangeStatistics()
  var skips = SkippedUpdates()

  /// - Parameters:
  ///   - shape: the mesh of the transport's ranks; nil: all of them share the microbatches.
  ///   - keepsPackedWeights: what the plan says.
  ///   - arenaByteLimit: what the plan says; nil: no limit.
  /// - Throws: `MeshLayoutError` when there are more data-parallel ranks than microbatches.
  /// - Collective: over the transport; the shape must agree.
  package init(
    configuration: RunConfiguration, folder: RunFolder, transport: any Transport,
    shape: MeshShape? = nil, keepsPackedWeights: Bool = false, arenaByteLimit: Int? = nil,
    reporter: Reporter,
    isStopRequested: @escaping () -> Bool = { StopSignal.isReceived }
  ) throws {
    self.configuration = configuration
    self.folder = folder
    self.transport = transport
    self.reporter = reporter
    self.isStopRequested = isStopRequested
    self.keepsPackedWeights = keepsPackedWeights
    let arena = Arena(limit: arenaByteLimit)
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
    try ranks.sharePasses(configuration.mesh) { [unowned self] in exchangeInPass($0) }
  }

  /// Sets the precision of the run, fp32 or bf16, before the first pass of a network.
  func settle(_ choice: RunConfiguration.PrecisionChoice) {
    require(choice != .auto, "a run has a precision of its own")
    configuration.compute.precision = choice
    precision = choice == .bf16 ? .bfloat16 : .float32
  }

  /// Who shares the tokens of this rank's microbatches, or the blocks of networks, where all ranks train together.
  package var sequence: (any SequenceParallel<Float>)? { ranks.sequence }
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
    let hasWorkBeside = ranks.hasWorkBeside || roles?.ranks.hasWorkBeside == true
    return Tape(
      arena: arena, role: role, precision: precision, isRecording: isRecording,
      store: isRecording ? activationStore : nil,
      betweenOperations: hasWorkBeside ? { [unowned self] in advanceWorkBeside() } : nil)
  }

  /// Opens the file that activations are kept in, where the configuration asks for it.
  /// - Throws: `JobError` where its folder cannot be written on some rank.
  /// - Collective: over the transport.
  package func openActivationStore() throws {
    guard configuration.model.offload else { return }
    let name = configuration.model.offloadFolder
    let place = name.isEmpty ? folder.url : URL(filePath: name)
    let store: FileActivationStore<Float> = try transport.onEveryRank {
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
    activationStore = store
    keepApart(in: ranks)
  }

  /// Has what microbatches in flight store of their activations kept apart.
  func keepApart(in set: RankSet) {
    guard let activationStore else { return }
    set.pipeline?.onTurn = { [unowned activationStore] in activationStore.microbatch = $0 }
  }

  package var seed: UInt64 { UInt64(configuration.seed) }

  /// Samples of a step over all ranks.
  package var batchSize: Int { configuration.batch.microbatches * configuration.batch.samples }
}
