// Decides which rank holds what, before anything is allocated. All ranks hold W, adapter and generator, or a
// shard of each at stage 3, and a shard of the optimizer state and averages; they share microbatches, and
// tokens where `mesh.sp`, `mesh.ring` or `mesh.tp` is more than 1, with `mesh.tp` also the weights of blocks, with
// `mesh.stages` the blocks themselves. Where roles are split, some of them hold the generator and the others all
// else while the student is distilled.

import Autodiff
import Basics
import Checkpoints
import DenseKernels
import Diffusion
import Exchange
import Foundation
package import MeshLayout
import Models
package import Planning

/// What the coordinator decided; the same on every rank.
package struct RunPlan: Codable, Sendable {
  package let shape: MeshShape
  /// Why this layout.
  package let reason: String
  package let costs: RunCosts
  /// Whether W and the generator are kept packed, if products read bfloat16.
  package let keepsPackedWeights: Bool
  /// The legal layouts that were looked at with what they cost, in order of preference; then, where they were asked
  /// for, all others.
  package let candidates: [LayoutCandidate]
  /// The budget that the plan was held against, in bytes.
  package let memoryPerRank: Int?
  /// What ranks and links do in a second; nil: not measured, the plan tells no times.
  package let rates: StepRates?
  /// Of the phases; empty where nothing was measured.
  package let times: [StepTime?]

  /// Bytes of a process before anything is allocated.
  package let programByteCount: Int

  /// By rank.
  package var processes: [ProcessMemory] {
    costs.processes(programByteCount: programByteCount, limit: memoryPerRank)
  }

  /// Bytes that the arena of a rank may take, so that its process keeps within the budget; nil: no limit.
  package var arenaByteLimit: Int? {
    memoryPerRank.map { $0 - (processes.map(\.besidePoolByteCount).max() ?? 0) }
  }

  /// Of the rank whose process needs most: what a limit is held against.
  package var processByteCountPerRank: Int { processes.map(\.byteCount).max() ?? 0 }

  /// Whether every rank keeps within the budget.
  package var fits: Bool { memoryPerRank.map { processByteCountPerRank <= $0 } ?? true }

  /// Why the run cannot begin; nil where it can.
  package var problem: String? {
    guard let memoryPerRank, !fits else { return nil }
    return "mesh.memoryPerRank is \(memoryPerRank), but the leanest layout (\(shape)) needs "
      + "\(processByteCountPerRank) bytes per rank: set model.recompute, exchange.overlap off, "
      + "fewer batch.samples, start more ranks, or raise the limit"
  }
}

/// A layout that could be taken.
package struct LayoutCandidate: Codable, Sendable {
  package let shape: MeshShape
  package let peakByteCountPerRank: Int
  /// Of the process that needs most.
  package let processByteCountPerRank: Int
  /// Floating-point operations of all steps on the busiest rank, and those that others do while split roles or
  /// stages wait for each other.
  package let operationCount: Double
  /// Bytes that all ranks send in a step of each phase, before coding; phases without steps are left out.
  package let sentByteCountPerStep: [String: Int]
  /// By role and category, of the fullest rank.
  package let accounts: [PlannedAccount]

  /// Predicted time of all training steps, and of a step of each phase; nil where nothing was measured, or the
  /// phase has no steps.
  package let seconds: Double?
  package let secondsPerStep: [String: Double]?
  /// Whether sums run in another order than on one rank.
  package let hasOtherBits: Bool

  init(
    _ shape: MeshShape, _ costs: RunCosts, sums: RunConfiguration.SumOrder, rates: StepRates?,
    programByteCount: Int, memoryPerRank: Int?
  ) {
    self.shape = shape
    hasOtherBits = sums != .canonical && shape.sequenceDegree > 1
    processByteCountPerRank =
      costs.processes(programByteCount: programByteCount, limit: memoryPerRank)
      .map(\.byteCount).max() ?? 0
    peakByteCountPerRank = costs.peakByteCountPerRank
    operationCount = costs.phases.reduce(0) {
      $0 + Double($1.stepCount) * $1.serialOperationsPerStep
    }
    sentByteCountPerStep = Dictionary(
      uniqueKeysWithValues: costs.phases.filter { $0.stepCount > 0 }
        .map { ($0.name, $0.exchangeByteCountPerStep) })
    accounts = costs.fullest?.accounts ?? []
    seconds = rates.map { costs.seconds(shape: shape, rates: $0) }
    secondsPerStep = rates.map { rates in
      Dictionary(
        uniqueKeysWithValues: zip(costs.phases, costs.times(shape: shape, rates: rates))
          .compactMap { phase, time in time.map { (phase.name, $0.seconds) } })
    }
  }

  var offer: LayoutOffer {
    LayoutOffer(
      shape: shape, byteCount: processByteCountPerRank, seconds: seconds,
      hasOtherBits: hasOtherBits)
  }
}

package enum Coordinator {
  /// The placement of a run over `rankCount` ranks, and what it costs. Reads at most the headers of
  /// the model folder and the text file that the configuration names.
  ///
  /// - Parameters:
  ///   - rates: what ranks and links do in a second; without them the plan tells no times and takes the first
  ///     layout that fits.
  ///   - programByteCount: resident before anything is allocated.
  ///   - listsAll: whether `candidates` are followed by every other legal layout, those with the least time first;
  ///     which one is taken does not depend on it.
  ///   - noted: what the run began with, on as many ranks: `auto` keeps its bits where that still fits.
  /// - Throws: `ConfigurationError` where that folder or file cannot be read or does not fit;
  ///   `MeshLayoutError`, which `configuration.validate(rankCount:)` tells as a problem.
  package static func plan(
    _ configuration: RunConfiguration, rankCount: Int,
    rates: StepRates? = nil, listsAll: Bool = false, noted: NotedLayout? = nil,
    programByteCount: Int = ProcessMemory.usualProgramByteCount
  ) throws -> RunPlan {
    let sizes = try WorkloadSizes(configuration)
    let search = LayoutSearch(configuration: configuration, sizes: sizes, rankCount: rankCount)
    let problems = search.search().problems
    guard problems.isEmpty else {
      throw ConfigurationError(problems.map { ConfigurationProblem($0.key, $0.message) })
    }
    let limit = configuration.mesh.memoryPerRank
    let memoryPerRank = limit > 0 ? limit : nil
    func fits(_ layout: Layout) -> Bool {
      guard let memoryPerRank else { return true }
      return layout.costs.processes(programByteCount: programByteCount, limit: memoryPerRank)
        .allSatisfy { $0.byteCount <= memoryPerRank }
    }
    var layouts: [Layout] = []
    var began = ""
    // Canonical sums have one order, whatever the layout.
    if let noted, noted.rankCount == rankCount, configuration.mesh.sums != .canonical {
      layouts = try self.layouts(search.search(noted), sizes)
      began = "the run began with its order of sums; "
    }
    if !layouts.contains(where: fits) {
      began = ""
      layouts = try self.layouts(search.search(), sizes)
      layouts += try further(search, sizes, beside: layouts.filter(fits), rates: rates)
    }
    func candidates(_ layouts: [Layout]) -> [LayoutCandidate] {
      layouts.map {
        LayoutCandidate(
          $0.shape, $0.costs, sums: configuration.mesh.sums, rates: rates,
          programByteCount: programByteCount, memoryPerRank: memoryPerRank)
      }
    }
    var listed = candidates(layouts)
    guard let pick = LayoutPick.choose(listed.map(\.offer), limit: memoryPerRank) else {
      trap("no layout and no problem for \(rankCount) ranks")
    }
    let (shape, costs) = layouts[pick.index]
    let hasChoice = listed.count > 1
    if listsAll {
      let known = Set(layouts.map(\.shape))
      listed += candidates(try self.layouts(search.every().filter { !known.contains($0) }, sizes))
        .sorted { $0.seconds ?? 0 < $1.seconds ?? 0 }
    }
    return RunPlan(
      shape: shape,
      reason: reason(for: shape, hasCanonicalSums: configuration.mesh.sums == .canonical)
        + (hasChoice ? "; taken: \(began)\(pick.reason)" : ""), costs: costs,
      keepsPackedWeights: sizes.keepsPackedWeights(shape), candidates: listed,
      memoryPerRank: memoryPerRank, rates: rates,
      times: rates.map { costs.times(shape: shape, rates: $0) } ?? [],
      programByteCount: programByteCount)
  }

  /// Layouts that are looked at only where none of the usual ones will do.
  private static func further(
    _ search: LayoutSearch, _ sizes: WorkloadSizes, beside fitting: [Layout], rates: StepRates?
  ) throws -> [Layout] {
    guard !fitting.isEmpty else {
      // Roles on ranks of their own wait for each other, but none pays for the other's memory.
      let split = try search.split.map { try layouts($0, sizes) } ?? []
      return try split + layouts(search.opened(), sizes)
    }
    guard let rates else { return [] }
    func load(_ layout: Layout) -> Double {
      LayoutPick.loadStretch(layout.shape, microbatchCount: sizes.microbatchCount)
    }
    var shapes: [MeshShape] = []
    if let least = fitting.map(load).min(), least * LayoutPick.otherBitsShare > 1 {
      shapes += search.opened(stretch: least * LayoutPick.otherBitsShare)
    }
    if fitting.allSatisfy({ $0.shape.zeroStage != .optimizer }) {
      shapes += search.replicas(ranksPerNode: rates.ranksPerNode)
    }
    return try layouts(shapes, sizes)
  }

  private typealias Layout = (shape: MeshShape, costs: RunCosts)

  private static func layouts(_ shapes: [MeshShape], _ sizes: WorkloadSizes) throws -> [Layout] {
    try shapes.map { ($0, try CostModel.costs(of: sizes, shape: $0)) }
  }

  /// Legal layouts in order of preference; with split roles of one stage the one with the shortest steps.
  private static func layouts(
    _ search: MeshSearch, _ sizes: WorkloadSizes
  ) throws -> [Layout] {
    let layouts = try layouts(search.shapes, sizes)
    guard search.splitsRoles else { return layouts }
    func order(_ layout: Layout) -> (ZeroStage, Double, Int) {
      (
        layout.shape.zeroStage,
        layout.costs.phases.lazy.compactMap(\.roles).first?.step ?? 0,
        layout.shape.generatorRanks?.count ?? 0
      )
    }
    return layouts.sorted { order($0) < order($1) }
  }

  private static func reason(for shape: MeshShape, hasCanonicalSums: Bool) -> String {
    guard let generatorRanks = shape.generatorRanks else {
      return colocatedReason(for: shape, hasCanonicalSums: hasCanonicalSums)
    }
    var all = shape
    all.generatorRanks = nil
    let first = shape.rankCount - generatorRanks.count
    func ranks(_ range: Range<Int>) -> String {
      range.count == 1
        ? "rank \(range.lowerBound) holds"
        : "ranks \(range.lowerBound) to \(range.upperBound - 1) hold"
    }
    return
      "split: while the generator is distilled \(ranks(0..<first)) W, the fake DiT and what scores "
      + "samples, \(ranks(first..<shape.rankCount)) the generator, its optimizer and average"
      + (generatorRanks.shape[.zero] == generatorRanks.count
        ? "" : " (\(generatorRanks.shape.axes))")
      + "; in the other phases "
      + colocatedReason(for: all, hasCanonicalSums: hasCanonicalSums)
  }

  private static func colocatedReason(for shape: MeshShape, hasCanonicalSums: Bool) -> String {
    if shape.rankCount == 1 { return "one rank holds everything" }
    let rankCount = shape.rankCount / shape[.dp]
    let state =
      rankCount == 1
      ? "every rank holds everything; gradients are summed over all" : Self.state(shape, rankCount)
    let replicas =
      shape[.dp] > 1 && rankCount > 1
      ? "; \(shape[.dp]) replicas of that sum their shards' gradients" : ""
    let held = (shape[.stages] > 1 ? stages(shape) : state) + replicas
    if shape.sequenceDegree == 1 { return held }
    let attention = [
      shape[.sp] > 1 ? "\(shape[.sp]) of them its heads" : nil,
      shape[.ring] > 1 ? "keys and values going round \(shape[.ring])" : nil,
    ].compactMap(\.self).joined(separator: ", ")
    return "\(shape.sequenceDegree) ranks share the tokens of a microbatch"
      + (attention.isEmpty ? "" : ", in attention \(attention)")
      + (shape[.tp] > 1 ? ", inside blocks \(shape[.tp]) of them the weights" : "")
      + (hasCanonicalSums
        ? ", sums are made in fixed blocks and slices, so bits are those of one rank"
        : ", so sums run in another order and bits are not those of one rank")
      + "; \(held)"
  }

  private static func stages(_ shape: MeshShape) -> String {
    let sharing =
      shape[.zero] > 1
      ? ", in each of them \(shape[.zero]) ranks share microbatches and shard all that" : ""
    return
      "\(shape[.stages]) stages run a stretch of the blocks each, with weights, gradients, optimizer "
      + "state and averages of these alone\(sharing); tokens pass from stage to stage"
  }

  private static func state(_ shape: MeshShape, _ rankCount: Int) -> String {
    switch shape.zeroStage {
    case .optimizer:
      "colocated: every rank holds all weights and 1/\(rankCount) of the optimizer state and "
        + "averages; gradients are reduced to their owners"
    case .gradients:
      "colocated: every rank holds all weights and 1/\(rankCount) of gradients, optimizer state and "
        + "averages; a block's gradients are reduced to their owners as soon as they are complete"
    case .parameters:
      "colocated: every rank holds 1/\(rankCount) of weights, gradients, optimizer state and "
        + "averages; a block's weights are gathered when it runs"
    }
  }
}

extension WorkloadSizes {
  /// The sizes of a run. Nothing of the network is allocated.
  /// - Throws: `ConfigurationError` where the model folder or the text file cannot be read or does
  ///   not fit.
  package init(_ configuration: RunConfiguration) throws {
    let folder =
      configuration.model.checkpoint.isEmpty ? nil : try configuration.openModelFolder()
    let transformer: any TransformerConfiguration =
      folder?.configuration ?? configuration.transformer
    let nullTokenCount = folder?.nullTokenCount ?? configuration.model.textTokens
    let file = configuration.data.text
    let text = try blaming("data.text") {
      file.isEmpty
        ? nil
        : try ConditionTexts.Sizes(
          of: SafetensorsReader(opening: URL(filePath: file)), sourceCount: nil,
          form: TextForm(transformer, nullTokenCount: nullTokenCount))
    }
    self.init(
      configuration, transformer: transformer, nullTokenCount: nullTokenCount, text: text)
  }

  private init(
    _ configuration: RunConfiguration, transformer: any TransformerConfiguration,
    nullTokenCount: Int, text: ConditionTexts.Sizes?
  ) {
    let specifications = ConditionedTransformer<Float>.specifications(
      of: transformer, nullTokenCount: nullTokenCount)
    let distill = configuration.distill
    let hasHead = distill.lambdaAdversarial > 0
    let method: Method =
      switch distill.method {
      case .w2s, .dmd2: .distributionMatching
      case .lcm: .consistency
      case .euler: .none
      }
    self.init(
      network: NetworkSizes(
        transformer, textTokenCount: max(nullTokenCount, text?.tokenCount ?? 0),
        latentShape: configuration.latentShape,
        sequencePlan: configuration.mesh.sequencePlan),
      networkUnits: FlatLayout(specifications).plannedUnits,
      adapterUnits: FlatLayout(
        AdapterConfiguration(rank: distill.loraRank, of: transformer)
          .parameterSpecifications(adapting: specifications)
      ).plannedUnits, adapterRank: distill.loraRank,
      headElementCount: hasHead
        ? FlatLayout(
          DiscriminatorHead<Float>.specifications(
            featureWidth: transformer.width, hiddenWidth: distill.discriminatorWidth)
        ).count : 0, discriminatorWidth: distill.discriminatorWidth,
      storedTextElementCounts: text?.elementCounts ?? [],
      microbatchCount: configuration.batch.microbatches,
      samplesPerMicrobatch: configuration.batch.samples,
      recomputedShare: configuration.recomputedShare, teachStepCount: configuration.teach.steps,
      method: method, distillStepCount: distill.steps, generatorStepCount: distill.generatorSteps,
      simulatesRollout: distill.rollout == .simulate, spreadsDepths: distill.depths == .spread,
      criticRatio: distill.criticRatio,
      pullsRealDiT: distill.method == .w2s && distill.alphaWeak != 0,
      isGuided: distill.guidance != 1, hasGroundTruthTerm: distill.lambdaGroundTruth > 0,
      keepsGeneratorAverage: distill.ema > 0,
      evaluationBatch: min(configuration.evaluate.batch, configuration.evaluate.samples),
      bucketByteCount: configuration.exchange.bucketByteCount)
    if configuration.mayKeepPackedWeights {
      let idle = Set(transformer.idleModules.map { "\($0).weight" })
      packedWeightByteCount =
        4
        * FlatLayout(specifications.filter { !idle.contains($0.name) })
        .packedWordCount(.bfloat16)
    }
    evaluationBatchCount =
      (configuration.evaluate.samples + evaluationBatch - 1) / evaluationBatch
    keepsPackedWeights = configuration.compute.packedWeights == .on
    network.sumsInBlocks = configuration.mesh.sums == .canonical
    offloadsActivations = configuration.model.offload
    overlapsExchange = configuration.exchange.overlap == .on
    schedule = configuration.mesh.schedule.planned
    threadCount = configuration.compute.threads
  }
}

extension RunConfiguration {
  /// Whether there is a layout that keeps weights packed.
  fileprivate var mayKeepPackedWeights: Bool {
    let isBFloat16 =
      compute.precision == .bf16 || compute.precision == .auto && ProductPrecision.bfloat16.isFast
    return switch compute.packedWeights {
    case .auto: isBFloat16 && mesh.memoryPerRank == 0
    case .on: isBFloat16
    case .off: false
    }
  }
}

extension FlatLayout {
  /// Its units as the planner wants them.
  var plannedUnits: [PlannedUnit] {
    units.map {
      PlannedUnit(
        isBlock: !$0.block.isEmpty, isOutput: $0.isOutput, elementCount: $0.range.count,
        tensors: cutTensors(of: $0))
    }
  }
}
