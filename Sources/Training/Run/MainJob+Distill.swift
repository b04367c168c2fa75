// The distill phase of the main job: which networks it trains by which method and on which ranks, its
// checkpoints, and the folders of final weights.

import Autodiff
import Basics
import Foundation
import Models
import ProcessMesh
import Tensors
import VideoData

extension MainJob {
  /// Trains from a step on; `save` is called after each step.
  private typealias Training = (
    _ firstStep: Int, _ save: @escaping (_ done: Int, _ mustStop: Bool) throws -> Void
  ) throws -> Void

  /// All networks after distillation, held by all ranks together; without a generator W is the student.
  /// - Parameter networks: those that were taught; nil afterwards.
  func distill(
    _ networks: inout Networks?, _ prepared: PreparedSet, _ texts: ConditionTexts?,
    start: StartingPoint?
  ) throws -> Networks {
    let batches = TrainingBatches(
      prepared, context: context, texts: texts,
      firstCounter: configuration.teach.steps * context.batchSize)
    let session = CheckpointSession(
      context, data: prepared.dataFingerprint, origin: start?.origin)
    if let roles = try context.splitRoles() {
      let split = try self.split(&networks, roles, start: start)
      context.arena.trim()
      try trainSplit(split, batches, session, start: start)
      context.arena.trim()
      let joined = try split.joined(context)
      try export(.real, joined.base.parameters, joined)
      return try finish(joined, start: start)
    }
    guard let colocated = networks.take() else { trap("nothing to distill") }
    return try distill(colocated, batches, session, start: start)
  }

  /// The same where all ranks have all roles.
  private func distill(
    _ networks: Networks, _ batches: TrainingBatches, _ session: CheckpointSession,
    start: StartingPoint?
  ) throws -> Networks {
    let real = CheckpointSession.Part("real", context.weights(networks.base.parameters))
    switch configuration.distill.method {
    case .euler:
      try export(.real, networks.base.parameters, networks)
      return networks
    case .lcm:
      let phase = ConsistencyPhase(context: context, networks: networks, batches: batches)
      let parts = [
        real, .init("generator", phase.optimizer), .init("target", phase.targetWeights),
      ]
      try train(session, parts, of: networks, start: start) { try phase.run(from: $0, save: $1) }
    case .w2s, .dmd2:
      let phase = DistillPhase(context: context, networks: networks, batches: batches)
      try train(session, [real] + phase.parts, of: networks, start: start) {
        try phase.run(from: $0, save: $1)
      }
    }
    return try finish(networks, start: start)
  }

  /// Hands the networks over to the ranks of their roles, who get them back when all is trained.
  private func split(
    _ networks: inout Networks?, _ roles: RoleRanks, start: StartingPoint?
  ) throws -> SplitNetworks {
    guard let taught = networks.take() else { trap("nothing to distill") }
    // A start inside this phase brings W with it, which is exported at the end then.
    if start?.phase != DistillPhase.name {
      try export(.real, taught.base.parameters, taught)
    }
    return SplitNetworks(roles, from: taught, context: context)
  }

  /// Optimizers are gone when it returns.
  private func trainSplit(
    _ split: SplitNetworks, _ batches: TrainingBatches, _ session: CheckpointSession,
    start: StartingPoint?
  ) throws {
    let phase = DistillPhase(context: context, split: split, batches: batches)
    try train(session, split.furtherParts(context) + phase.parts, of: nil, start: start) {
      try phase.run(from: $0, save: $1)
    }
  }

  /// Loads where the run goes on inside the phase, then trains and saves.
  /// - Parameter networks: whose W is exported before the first step.
  private func train(
    _ session: CheckpointSession, _ parts: [CheckpointSession.Part], of networks: Networks?,
    start: StartingPoint?, _ training: Training
  ) throws {
    var firstStep = 0
    if let start, start.phase == DistillPhase.name {
      try session.load(start.folder, parts: parts)
      firstStep = start.phaseStep
    }
    // Only now: a start inside this phase brings W with it.
    if let networks { try export(.real, networks.base.parameters, networks) }
    try training(firstStep) { [self] stepsDone, mustStop in
      try saveIfDue(
        session, phase: DistillPhase.name, stepsDone, of: configuration.distill.steps,
        firstGlobalStep: configuration.teach.steps, mustStop: mustStop, parts: parts)
    }
  }

  /// Writes what the phase leaves.
  private func finish(_ networks: Networks, start: StartingPoint?) throws -> Networks {
    guard let generator = networks.generator else {
      trap("distillation left no generator")
    }
    let memory = try MemoryRecord(context.arena.ledger, transport)
    let firstStep = start?.phase == DistillPhase.name ? start?.phaseStep ?? 0 : 0
    let hasTrained = firstStep < configuration.distill.steps
    try transport.onRoot {
      if hasTrained || !FileManager.default.fileExists(atPath: folder.memory.path) {
        try memory.write(to: folder)
      }
    }
    try export(.generator, generator.parameters, networks)
    if let adapter = networks.adapter { try export(.fake, adapter.parameters, networks) }
    return networks
  }

  func saveIfDue(
    _ session: CheckpointSession, phase: String, _ stepsDone: Int, of stepCount: Int,
    firstGlobalStep: Int, mustStop: Bool, parts: [CheckpointSession.Part]
  ) throws {
    // While updates are skipped the newest checkpoint is to stay the one before.
    let isDue =
      stepsDone == stepCount
      || (stepsDone % configuration.checkpoint.everySteps == 0 && !context.isSkipping)
    if isDue || mustStop {
      try session.save(
        phase: phase, phaseStep: stepsDone, globalStep: firstGlobalStep + stepsDone, parts: parts)
    }
    if mustStop { throw StoppedOnSignal() }
  }

  /// Writes a folder of a network's weights, if it is not there yet; rank 0 writes, unit by unit where
  /// no rank holds all.
  /// - Collective: over the context's transport.
  private func export(
    _ role: RunFolder.FinalRole, _ parameters: ParameterSet<Float>, _ networks: Networks
  ) throws {
    let isThere = try transport.onRoot {
      FileManager.default.fileExists(atPath: folder.final(role).path)
    }
    if isThere { return }
    var writer: (any ModelWriter)?
    try transport.onRoot {
      let partial = try folder.beginExport(role)
      writer =
        if role == .fake, let adapter = networks.adapter {
          try AdapterFolderWriter(creating: partial, adapter)
        } else {
          try TransformerFolderWriter(
            creating: partial, networks.configuration, parameters: parameters.specifications)
        }
    }
    try parameters.readUnits { entries in
      try transport.onRoot {
        for parameter in parameters.parameters[entries] { try writer?.append(parameter) }
      }
    }
    try context.throwSharedFailure()
    try transport.onRoot {
      try writer?.finish()
      try folder.finishExport(role)
    }
  }
}

extension DistillPhase {
  /// What this rank trains.
  fileprivate var parts: [CheckpointSession.Part] {
    (generator.map { [.init("generator", $0.optimizer)] } ?? [])
      + (score.map { [.init("fake", $0.adapterOptimizer)] } ?? [])
      + (score?.headOptimizer.map { [.init("discriminator", $0)] } ?? [])
  }
}
