// The main job: prepare, teach, distill, sample, evaluate, report, each resumed or skipped when its
// result is there. Called by every rank; returns the exit code.

import Autodiff
import Basics
import Checkpoints
import DenseKernels
import Evaluation
import Exchange
package import Foundation
import Models
import Planning
package import ProcessMesh
import Tensors
import VideoData

/// What the user asked of `--resume`.
package enum ResumeMode: Equatable, Sendable {
  /// The newest valid checkpoint of the run folder; without one, from the start.
  case auto
  /// From the start; a run that is there already is moved aside.
  case never
  /// A checkpoint folder, from any run of the same model.
  case checkpoint(URL)

  package init(_ text: String) {
    switch text {
    case "auto": self = .auto
    case "never": self = .never
    default: self = .checkpoint(URL(filePath: text))
    }
  }
}

package final class MainJob {
  private let configuration: RunConfiguration
  private let folder: RunFolder
  private let resume: ResumeMode
  private let transport: any Transport
  private let plan: RunPlan
  private let context: RunContext
  private let environment: [ReportContent.Fact]
  private var reporter: Reporter { context.reporter }

  /// - Throws: `MeshLayoutError` when there are more ranks than microbatches.
  package init(
    configuration: RunConfiguration, folder: RunFolder, resume: ResumeMode,
    transport: any Transport, reporter: Reporter, plan: RunPlan,
    environment: [(name: String, value: String)],
    isStopRequested: @escaping () -> Bool = { StopSignal.isReceived }
  ) throws {
    self.configuration = configuration
    self.folder = folder
    self.resume = resume
    self.transport = transport
    self.plan = plan
    self.environment = environment.map { ReportContent.Fact($0.name, $0.value) }
    context = try RunContext(
      configuration: configuration, folder: folder, transport: transport, reporter: reporter,
      isStopRequested: isStopRequested)
  }

  /// - Throws: `JobError`, the same on all ranks; anything else is a failure of this rank alone.
  /// - Collective: over the transport.
  package func run() throws -> ExitCode {
    var lock: RunLock?
    try transport.onRoot { lock = try openFolder() }
    defer { withExtendedLifetime(lock) {} }
    do {
      try runPhases()
      return .done
    } catch is StoppedOnSignal {
      reporter.say("stopped on a signal; everything is saved, start again to go on")
      return .resumeMe
    }
  }

  // MARK: Phases

  private func runPhases() throws {
    let start = try chooseStart()
    try transport.onRoot {
      try RunFolder.write(Data(configuration.yaml.utf8), to: folder.configuration)
      try RunFolder.write(Data(plan.text.utf8), to: folder.plan)
      reporter.say(plan.text)
      let position =
        start.map {
          MetricsLog.Position(
            phase: $0.phase, step: $0.phaseStep,
            laterPhases: $0.phase == TeachPhase.name ? [DistillPhase.name] : [])
        } ?? MetricsLog.Position(phase: TeachPhase.name, step: 0, laterPhases: [DistillPhase.name])
      try reporter.open(folder, resumingAt: position)
    }

    let prepared = try prepare()
    let networks = try buildNetworks()
    let texts = try loadTexts(prepared)
    try teach(networks, prepared, texts, start: start)
    try transport.onRoot { try exportOnce(networks.base.parameters, .real, networks) }
    let student = try distill(networks, prepared, texts, start: start)

    let generator = ClipGenerator(
      context: context, teacher: networks.base, student: student, codec: prepared.codec,
      latentShape: prepared.latentShape)
    try SamplePhase(context: context, generator: generator, prepared: prepared, texts: texts).run()
    try context.stopIfAsked()
    try EvaluatePhase(context: context, generator: generator, prepared: prepared, texts: texts)
      .run()
    try transport.onRoot { try report(prepared) }
  }

  /// - Collective: rank 0 makes the set, the others read it.
  private func prepare() throws -> PreparedSet {
    try transport.onRoot {
      let prepared = try PreparedSet.prepare(
        from: configuration.clipOrigin, options: configuration.preparationOptions,
        in: folder.prepared, say: reporter.say)
      let decibels = String(format: "%.1f", prepared.codecPSNR)
      reporter.say(
        "prepare: \(prepared.sources.count) videos, latents \(prepared.latentShape), codec "
          + "\(decibels) dB on held-out clips")
    }
    return try transport.onEveryRank { try PreparedSet(loading: folder.prepared) }
  }

  private func buildNetworks() throws -> Networks {
    guard configuration.model.checkpoint.isEmpty else {
      return try transport.onEveryRank {
        let source = try HunyuanVideoFolder(
          opening: URL(filePath: configuration.model.checkpoint))
        let networks = Networks(
          source.configuration,
          nullTokenCount: source.nullTokenCount ?? configuration.model.textTokens,
          arena: context.arena)
        networks.base.parameters.initialize(seed: context.seed)
        try source.load(into: networks.base.parameters)
        return networks
      }
    }
    let networks = Networks(
      configuration.transformer, nullTokenCount: configuration.model.textTokens,
      arena: context.arena)
    networks.base.parameters.initialize(seed: context.seed)
    return networks
  }

  private func loadTexts(_ prepared: PreparedSet) throws -> ConditionTexts? {
    guard !configuration.data.text.isEmpty else { return nil }
    return try transport.onEveryRank {
      try ConditionTexts(
        reading: URL(filePath: configuration.data.text), sourceCount: prepared.sources.count,
        textWidth: configuration.model.textWidth, pooledWidth: configuration.model.pooledWidth,
        in: context.arena)
    }
  }

  private func teach(
    _ networks: Networks, _ prepared: PreparedSet, _ texts: ConditionTexts?, start: Start?
  ) throws {
    if start?.phase == DistillPhase.name { return }
    let phase = TeachPhase(
      context: context, networks: networks,
      batches: TrainingBatches(prepared, context: context, texts: texts, firstCounter: 0))
    let parts = [
      CheckpointSession.Part("real", networks.base.parameters, optimizer: phase.optimizer)
    ]
    let session = CheckpointSession(context)
    if let start { try session.load(start.folder, parts: parts) }
    try phase.run(from: start?.phaseStep ?? 0) { stepsDone, mustStop in
      try saveIfDue(
        session, phase: TeachPhase.name, stepsDone, of: configuration.teach.steps,
        firstGlobalStep: 0, mustStop: mustStop, parts: parts)
    }
  }

  /// The student's network: the distilled generator, or W itself for the Euler baseline.
  private func distill(
    _ networks: Networks, _ prepared: PreparedSet, _ texts: ConditionTexts?, start: Start?
  ) throws -> ConditionedTransformer<Float> {
    let batches = TrainingBatches(
      prepared, context: context, texts: texts,
      firstCounter: configuration.teach.steps * context.batchSize)
    let session = CheckpointSession(context)
    var parts = [CheckpointSession.Part("real", networks.base.parameters)]
    let train:
      (_ firstStep: Int, _ save: @escaping (_ done: Int, _ mustStop: Bool) throws -> Void) throws ->
        Void
    switch configuration.distill.method {
    case .euler: return networks.base
    case .lcm:
      let phase = ConsistencyPhase(context: context, networks: networks, batches: batches)
      parts.append(
        .init("generator", phase.optimizer.parameters, optimizer: phase.optimizer))
      parts.append(.init("target", phase.target.parameters))
      train = { try phase.run(from: $0, save: $1) }
    case .w2s, .dmd2:
      let phase = DistillPhase(context: context, networks: networks, batches: batches)
      parts.append(
        .init(
          "generator", phase.generatorOptimizer.parameters, optimizer: phase.generatorOptimizer))
      parts.append(
        .init("fake", phase.adapterOptimizer.parameters, optimizer: phase.adapterOptimizer))
      if let head = phase.headOptimizer {
        parts.append(.init("discriminator", head.parameters, optimizer: head))
      }
      train = { try phase.run(from: $0, save: $1) }
    }
    var firstStep = 0
    if let start, start.phase == DistillPhase.name {
      try session.load(start.folder, parts: parts)
      firstStep = start.phaseStep
    }
    try train(firstStep) { [self] stepsDone, mustStop in
      try saveIfDue(
        session, phase: DistillPhase.name, stepsDone, of: configuration.distill.steps,
        firstGlobalStep: configuration.teach.steps, mustStop: mustStop, parts: parts)
    }
    guard let generator = networks.generator else {
      preconditionFailure("distillation left no generator")
    }
    let memory = try MemoryRecord(context.arena.ledger, transport)
    try transport.onRoot {
      try memory.write(to: folder)
      try exportOnce(generator.parameters, .generator, networks)
      if let adapter = networks.adapter {
        try exportOnce(.fake) { try adapter.write(to: $0) }
      }
    }
    return generator
  }

  private func saveIfDue(
    _ session: CheckpointSession, phase: String, _ stepsDone: Int, of stepCount: Int,
    firstGlobalStep: Int, mustStop: Bool, parts: [CheckpointSession.Part]
  ) throws {
    let isDue = stepsDone % configuration.checkpoint.everySteps == 0 || stepsDone == stepCount
    if isDue || mustStop {
      try session.save(
        phase: phase, phaseStep: stepsDone, globalStep: firstGlobalStep + stepsDone, parts: parts)
    }
    if mustStop { throw StoppedOnSignal() }
  }

  private func exportOnce(
    _ parameters: ParameterSet<Float>, _ role: RunFolder.FinalRole, _ networks: Networks
  ) throws {
    try exportOnce(role) { try networks.configuration.write(parameters, to: $0) }
  }

  private func exportOnce(_ role: RunFolder.FinalRole, _ write: (URL) throws -> Void) throws {
    let url = folder.final(role)
    guard !FileManager.default.fileExists(atPath: url.path) else { return }
    try FileManager.default.createDirectory(
      at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
    try write(url)
  }

  private func report(_ prepared: PreparedSet) throws {
    var facts = environment
    facts.append(.init("ranks", "\(transport.size)"))
    facts.append(.init("videos", prepared.sources.map(\.name).joined(separator: ", ")))
    facts.append(
      .init("latent codec", String(format: "%.1f dB on held-out clips", prepared.codecPSNR)))
    facts += context.exchange.decisions.map { .init("exchange", "\($0)") }
    let content = try ReportPhase.content(
      of: configuration, in: folder, title: "W2SVD run \(folder.url.lastPathComponent)",
      environment: facts)
    try ReportPhase.write(content, to: folder)
    for table in content.samplerTables { reporter.say(table.plainText) }
    reporter.say("report: \(folder.report.path)")
  }

  // MARK: Start

  /// Where the run goes on.
  private struct Start: Codable {
    let folder: URL
    let phase: String
    let phaseStep: Int
  }

  /// Makes the folder ours; the lock lives as long as the job. Starting over moves an earlier run
  /// aside, it is never deleted.
  private func openFolder() throws -> RunLock {
    let lock = try RunLock(runFolder: folder.url)
    guard resume == .never, FileManager.default.fileExists(atPath: folder.checkpoints.path) else {
      return lock
    }
    let aside = (1...).lazy.map { [folder] in URL(filePath: "\(folder.url.path).previous-\($0)") }
      .first { !FileManager.default.fileExists(atPath: $0.path) }
    guard let aside else { return lock }
    try FileManager.default.moveItem(at: folder.url, to: aside)
    reporter.say("the earlier run was moved to \(aside.path)")
    return try RunLock(runFolder: folder.url)
  }

  /// The checkpoint to start from, verified whole; nil starts from the beginning.
  private func chooseStart() throws -> Start? {
    try transport.onRoot {
      switch resume {
      case .never: return nil
      case .checkpoint(let url):
        let reader = try CheckpointReader(opening: url)
        let newest = CheckpointStore(folder.checkpoints).candidates().first
        guard newest == nil || newest?.step == reader.manifest.fields.step else {
          throw ConfigurationError([
            ConfigurationProblem(
              "--resume",
              "\(folder.url.path) has checkpoints newer than \(url.path): choose an empty folder "
                + "with --run")
          ])
        }
        return try start(from: reader)
      case .auto:
        let found = CheckpointStore(folder.checkpoints).newestValid(deep: true)
        found.skipped.forEach { reporter.say("skipped checkpoint \($0)") }
        return try found.reader.map(start(from:))
      }
    }
  }

  private func start(from reader: CheckpointReader) throws -> Start {
    let problems = reader.verify(deep: true)
    guard problems.isEmpty else {
      throw JobError(
        exitCode: .other,
        "\(reader.folder.path) is damaged: \(problems.map(\.description).joined(separator: "; "))")
    }
    let fields = reader.manifest.fields
    try ResumeRules.check(configuration, against: fields.configuration, folder: reader.folder)
    let start = Start(
      folder: reader.folder, phase: fields.phase, phaseStep: fields.counters["phaseStep"] ?? 0)
    reporter.say("resuming \(start.phase) after step \(start.phaseStep): \(reader.folder.path)")
    return start
  }
}
