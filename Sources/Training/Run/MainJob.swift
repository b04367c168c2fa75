// The main job: prepare, teach, distill, sample, evaluate, report, each resumed or skipped when its
// result is there. Called by every rank; returns the exit code.

import Autodiff
import Basics
import Checkpoints
import DenseKernels
import Evaluation
import Exchange
import Foundation
import Models
import Planning
package import ProcessMesh
import Tensors
import VideoData

package final class MainJob {
  let configuration: RunConfiguration
  let folder: RunFolder
  private let resume: ResumeMode
  let transport: any Transport
  private let plan: RunPlan
  let context: RunContext
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
      configuration: configuration, folder: folder, transport: transport, shape: plan.shape,
      keepsPackedWeights: plan.keepsPackedWeights, arenaByteLimit: plan.arenaByteLimit,
      reporter: reporter, isStopRequested: isStopRequested)
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
    let opening = try openRun()
    let start = opening.start
    context.settle(opening.precision)
    let prepared = try prepare(start: start)
    try context.stopIfAsked()
    var networks: Networks?
    let texts: ConditionTexts?
    (networks, texts) = try taughtNetworks(prepared, start: start)
    let trained = try distill(&networks, prepared, texts, start: start)
    context.arena.trim()

    let generator = ClipGenerator(
      context: context, teacher: trained.base, student: trained.generator ?? trained.base,
      codec: prepared.codec, latentShape: prepared.latentShape)
    try SamplePhase(context: context, generator: generator, prepared: prepared, texts: texts).run()
    try EvaluatePhase(context: context, generator: generator, prepared: prepared, texts: texts)
      .run()
    try transport.onRoot { try report(prepared) }
  }

  /// Networks of which W has learned, or will come with the checkpoint of a later phase.
  private func taughtNetworks(
    _ prepared: PreparedSet, start: StartingPoint?
  ) throws -> (networks: Networks?, texts: ConditionTexts?) {
    let networks = try buildNetworks()
    try context.openActivationStore()
    let texts = try loadTexts(prepared, networks)
    try teach(networks, prepared, texts, start: start)
    // What the next phase holds is of other sizes.
    context.arena.trim()
    return (networks, texts)
  }

  /// What rank 0 decides for all before anything is computed.
  private struct Opening: Codable {
    let start: StartingPoint?
    let precision: RunConfiguration.PrecisionChoice
  }

  /// Chooses the start and makes the files of the run folder agree with it.
  private func openRun() throws -> Opening {
    try transport.onRoot { () throws -> Opening in
      let start = try StartingPoint.choose(
        resume, in: folder, for: configuration, say: reporter.say)
      let precision = try PrecisionRule.resolve(
        configuration.compute.precision, made: start?.precision,
        isFast: context.multipliesBFloat16)
      context.settle(precision)
      PrecisionRule.warning(precision, isFast: context.multipliesBFloat16).map(reporter.say)
      if let aside = try folder.setAside(staleResults(start)) {
        reporter.say(
          "results of another course of training or of other settings were moved to \(aside.path)")
      }
      try RunFolder.write(Data(context.configuration.yaml.utf8), to: folder.configuration)
      try RunFolder.write(Data(plan.text.utf8), to: folder.plan)
      reporter.say(plan.text)
      try reporter.open(
        folder,
        resumingAt: MetricsLog.Position(
          phase: start?.phase ?? TeachPhase.name, step: start?.phaseStep ?? 0,
          laterPhases: start?.phase == DistillPhase.name ? [] : [DistillPhase.name]))
      return Opening(start: start, precision: precision)
    }
  }

  /// Results in the folder that the start or the settings do not stand for any more.
  private func staleResults(_ start: StartingPoint?) -> [URL] {
    var stale: [URL] = []
    if start?.isTaught(configuration) != true { stale += folder.resultsOfTeaching }
    let earlier = (try? String(contentsOf: folder.configuration, encoding: .utf8))
      .flatMap { try? ConfigurationReader.read(stored: $0) }
    // Where nothing is distilled a finished run may be started with other settings of what follows.
    func differ(_ section: String) -> Bool {
      earlier.map { ResumeRules.differ($0, configuration, in: section) } ?? true
    }
    if start?.isDistilled(configuration) != true || differ("distill.") {
      stale += folder.resultsOfDistillation
    } else if differ("sample.") {
      stale += folder.shownResults
    }
    return stale
  }

  /// A stop request to rank 0 ends it at once; the next start prepares from the first video again.
  /// - Collective: rank 0 makes the set, the others read it.
  private func prepare(start: StartingPoint?) throws -> PreparedSet {
    let isStopped = try transport.onRoot { () throws -> Bool in
      let prepared: PreparedSet
      do {
        prepared = try PreparedSet.prepare(
          from: configuration.clipOrigin, options: configuration.preparationOptions,
          in: folder.prepared, wanted: start?.data,
          isStopRequested: context.isStopRequested, say: reporter.say)
      } catch let error as VideoError where error.code == .stopped {
        return true
      } catch let error as VideoError where error.code == .otherData {
        throw start?.refusal(of: error) ?? error
      }
      let decibels = String(format: "%.1f", prepared.codecPSNR)
      reporter.say(
        "prepare: \(prepared.sources.count) videos, latents \(prepared.latentShape), codec "
          + "\(decibels) dB on held-out clips")
      return false
    }
    if isStopped { throw StoppedOnSignal() }
    return try transport.onEveryRank { try PreparedSet(loading: folder.prepared) }
  }

  private func buildNetworks() throws -> Networks {
    let makeParameters = context.parameters
    guard configuration.model.checkpoint.isEmpty else {
      return try transport.onEveryRank {
        let source = try configuration.openModelFolder()
        let networks = Networks(
          source.configuration,
          nullTokenCount: source.nullTokenCount ?? configuration.model.textTokens,
          makeParameters: makeParameters)
        networks.configuration.initialize(networks.base.parameters, seed: context.seed)
        _ = try blaming("model.checkpoint") { try source.load(into: networks.base.parameters) }
        return networks
      }
    }
    let networks = Networks(
      configuration.transformer, nullTokenCount: configuration.model.textTokens,
      makeParameters: makeParameters)
    networks.configuration.initialize(networks.base.parameters, seed: context.seed)
    return networks
  }

  private func loadTexts(_ prepared: PreparedSet, _ networks: Networks) throws -> ConditionTexts? {
    guard !configuration.data.text.isEmpty else { return nil }
    return try transport.onEveryRank {
      try blaming("data.text") {
        try ConditionTexts(
          reading: URL(filePath: configuration.data.text), sourceCount: prepared.sources.count,
          form: TextForm(
            networks.configuration, nullTokenCount: networks.base.nullTokenCount),
          in: context.arena)
      }
    }
  }

  private func teach(
    _ networks: Networks, _ prepared: PreparedSet, _ texts: ConditionTexts?, start: StartingPoint?
  ) throws {
    if start?.phase == DistillPhase.name { return }
    let phase = TeachPhase(
      context: context, networks: networks,
      batches: TrainingBatches(prepared, context: context, texts: texts, firstCounter: 0))
    let parts = [
      CheckpointSession.Part("real", phase.optimizer)
    ]
    let session = CheckpointSession(
      context, data: prepared.dataFingerprint, origin: start?.origin)
    if let start {
      try session.load(start.folder, parts: parts)
    } else if configuration.teach.steps == 0 {
      // So that a run that has nothing to teach is known again as well.
      try session.save(phase: TeachPhase.name, phaseStep: 0, globalStep: 0, parts: parts)
    }
    try phase.run(from: start?.phaseStep ?? 0) { stepsDone, mustStop in
      try saveIfDue(
        session, phase: TeachPhase.name, stepsDone, of: configuration.teach.steps,
        firstGlobalStep: 0, mustStop: mustStop, parts: parts)
    }
  }

  private func report(_ prepared: PreparedSet) throws {
    var facts = environment
    facts.append(.init("ranks", "\(transport.size)"))
    facts.append(.init("videos", prepared.sources.map(\.name).joined(separator: ", ")))
    facts.append(
      .init("latent codec", String(format: "%.1f dB on held-out clips", prepared.codecPSNR)))
    facts += context.exchange.decisions.map { .init("exchange", "\($0)") }
    let content = try ReportPhase.content(
      of: context.configuration, in: folder, title: "W2SVD run \(folder.url.lastPathComponent)",
      environment: facts)
    try ReportPhase.write(content, to: folder)
    for table in content.samplerTables { reporter.say(table.plainText) }
    reporter.say("report: \(folder.report.path)")
  }

  /// Makes the folder ours; the lock lives as long as the job. Starting over moves an earlier run
  /// aside, it is never deleted.
  private func openFolder() throws -> RunLock {
    let lock = try RunLock(runFolder: folder.url)
    folder.removeLeftovers()
    guard resume == .never, let aside = try folder.setRunAside() else { return lock }
    reporter.say("the earlier run was moved to \(aside.path)")
    return try RunLock(runFolder: folder.url)
  }
}
