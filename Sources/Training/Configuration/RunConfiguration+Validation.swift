// Every rule that the values must keep, each with what to do. All problems are told at once.

import Diffusion
import Exchange
import MeshLayout
import Models
import Planning

extension RunConfiguration {
  /// What is wrong with the values, by key; empty when the run can be planned.
  package func validate() -> [ConfigurationProblem] {
    var check = Checks()
    check.require("seed", seed >= 0, "must not be negative")

    check.require(
      "data.frameCount",
      (5...Self.largestFrameCount).contains(data.frameCount) && data.frameCount % 4 == 1,
      "must be 1 + a multiple of 4 (5, 9, 13, 17 …) up to \(Self.largestFrameCount), found "
        + "\(data.frameCount)")
    check.require(
      "data.size", data.size >= 16 && data.size % 8 == 0,
      "must be a multiple of 8 from 16 on (latents are 4 times smaller, patches 2 × 2, similarity is "
        + "measured in windows of 11), found \(data.size)")
    check.require(
      "data.shortSide", data.shortSide >= data.size && data.shortSide <= 2_160,
      "must be from data.size (\(data.size)) to 2160, found \(data.shortSide)")
    check.fraction("data.holdout", data.holdout, upTo: 0.9)
    check.fraction("data.conditionDropout", data.conditionDropout)
    check.positive("data.proceduralPeople", data.proceduralPeople, upTo: 1_000)

    if model.checkpoint.isEmpty { validateModel(&check) }

    check.positive("batch.microbatches", batch.microbatches, upTo: 65_536)
    check.positive("batch.samples", batch.samples, upTo: 65_536)

    check.count("teach.steps", teach.steps)
    check.require(
      "teach.steps", teach.steps > 0 || !model.checkpoint.isEmpty,
      "is 0, so the real DiT would stay random: give model.checkpoint a folder or raise it")
    check.optimizer(
      "teach", learningRate: teach.learningRate, key: "learningRate", beta1: teach.beta1,
      beta2: teach.beta2, weightDecay: teach.weightDecay, clip: teach.clip)
    check.count("teach.warmupSteps", teach.warmupSteps)
    check.decay("teach.ema", teach.ema)
    check.require("teach.shift", teach.shift > 0, "must be positive; 1 is no shift")

    check.count("distill.steps", distill.steps)
    check.require(
      "distill.generatorSteps", (1...100).contains(distill.generatorSteps),
      "must be 1 to 100, found \(distill.generatorSteps)")
    check.positive("distill.criticRatio", distill.criticRatio)
    check.require(
      "distill.alphaWeak", (0...1).contains(distill.alphaWeak),
      "must be 0 to 1 (0 is DMD2, 1 has no pull), found \(distill.alphaWeak)")
    check.require("distill.alphaStrong", distill.alphaStrong > 0, "must be positive")
    check.require("distill.guidance", distill.guidance >= 0, "must not be negative")
    check.require("distill.flowShift", distill.flowShift > 0, "must be positive; 1 is no shift")
    check.require("distill.scoreShift", distill.scoreShift > 0, "must be positive; 1 is no shift")
    check.require(
      "distill.scoreMinimum",
      distill.scoreMinimum > 0 && distill.scoreMinimum < distill.scoreMaximum
        && distill.scoreMaximum <= 1,
      "0 < scoreMinimum < scoreMaximum ≤ 1 must hold, found \(distill.scoreMinimum) and "
        + "\(distill.scoreMaximum)")
    for (key, weight) in [
      ("lambdaGroundTruth", distill.lambdaGroundTruth),
      ("lambdaAdversarial", distill.lambdaAdversarial),
      ("lambdaDiscriminator", distill.lambdaDiscriminator),
    ] { check.require("distill.\(key)", weight >= 0, "must not be negative") }
    check.require(
      "distill.lambdaGroundTruth",
      distill.lambdaGroundTruth == 0 || distill.rollout == .data,
      "compares with the ground truth of the same noise: set distill.rollout to data")
    check.positive("distill.discriminatorWidth", distill.discriminatorWidth, upTo: 65_536)
    check.positive("distill.loraRank", distill.loraRank, upTo: 65_536)
    check.require("distill.loraAlpha", distill.loraAlpha > 0, "must be positive")
    check.optimizer(
      "distill", learningRate: distill.generatorLearningRate, key: "generatorLearningRate",
      beta1: distill.beta1, beta2: distill.beta2, weightDecay: distill.weightDecay,
      clip: distill.clip)
    check.require(
      "distill.criticLearningRate", distill.criticLearningRate > 0, "must be positive")
    check.decay("distill.ema", distill.ema)
    check.decay("distill.consistencyEMA", distill.consistencyEMA)

    check.positive("compute.threads", compute.threads, upTo: 1024)
    check.positive("sample.clips", sample.clips, upTo: 10_000)
    check.positive("sample.teacherSteps", sample.teacherSteps, upTo: 10_000)
    check.require(
      "evaluate.samples", (2...1_000_000).contains(evaluate.samples),
      "must be 2 to 1000000, found \(evaluate.samples)")
    check.positive("evaluate.batch", evaluate.batch, upTo: 65_536)
    check.positive("checkpoint.everySteps", checkpoint.everySteps)
    check.positive("checkpoint.keep", checkpoint.keep)
    check.require("log.everySeconds", log.everySeconds > 0, "must be positive")
    check.problems += exchange.validate().map { ConfigurationProblem("", $0) }

    let hasStages = [mesh.stages, mesh.generatorStages].contains { $0 != .auto && $0 != .fixed(1) }
    if hasStages {
      check.require(
        "mesh.schedule", mesh.schedule != .gPipe || batch.microbatches <= Self.largestFlight,
        "is gpipe, which keeps all \(batch.microbatches) microbatches in flight, each with a thread: set it to "
          + "1f1b, or batch.microbatches to at most \(Self.largestFlight)")
    }
    for (key, degree) in [
      ("dp", mesh.dp), ("zero", mesh.zero), ("ring", mesh.ring), ("sp", mesh.sp), ("tp", mesh.tp),
      ("stages", mesh.stages), ("generatorRanks", mesh.generatorRanks),
      ("generatorDp", mesh.generatorDp), ("generatorRing", mesh.generatorRing),
      ("generatorSp", mesh.generatorSp), ("generatorTp", mesh.generatorTp),
      ("generatorStages", mesh.generatorStages),
    ] {
      if case .fixed(let count) = degree {
        check.require("mesh.\(key)", count >= 1, "must be auto or at least 1, found \(count)")
      }
    }
    for (key, stage) in [
      ("zeroStage", mesh.zeroStage), ("generatorZeroStage", mesh.generatorZeroStage),
    ] {
      if case .fixed(let stage) = stage {
        check.require(
          "mesh.\(key)", ZeroStage(rawValue: stage) != nil,
          "must be auto, 1, 2 or 3, found \(stage)")
      }
    }
    check.require(
      "mesh.placement", mesh.placement != .split || canSplitRoles,
      "is split, but distill.method \(distill.method.rawValue) has no critic that other ranks could train: "
        + "set it to colocated, or distill.method to w2s or dmd2")
    check.require(
      "mesh.memoryPerRank", mesh.memoryPerRank >= 0,
      "must be 0 (no limit) or a number of bytes, found \(mesh.memoryPerRank)")
    if model.checkpoint.isEmpty, (1...4_096).contains(model.heads),
      (1...512).contains(model.headWidth)
    {
      check.problems += problems(with: transformer)
    }
    // Products of values that are wrong by themselves say nothing new, and may not be representable.
    if check.problems.isEmpty { validateProducts(&check) }
    return check.problems
  }

  /// Microbatches of a step that GPipe may keep in flight.
  private static let largestFlight = 1_024

  /// A video gives at most this many frames (`PreparationOptions.maximumFrameCount`).
  private static let largestFrameCount = 3_997

  /// What no random number, and no machine, could count.
  private func validateProducts(_ check: inout Checks) {
    let batchSize = batch.microbatches * batch.samples
    check.require(
      "teach.steps", Double(teach.steps + distill.steps) * Double(batchSize) < 0x1p32,
      "with distill.steps makes \(teach.steps + distill.steps) steps of \(batchSize) samples: "
        + "they must be fewer than 2^32 in all")
    check.require(
      "distill.steps", distill.steps * distill.generatorSteps < 1 << 32,
      "times distill.generatorSteps must be less than 2^32")
    check.require(
      "batch.samples", batch.samples * videoTokenCount < 1 << 32,
      "makes \(batch.samples * videoTokenCount) tokens of a microbatch: they must be fewer than 2^32"
    )
    guard model.checkpoint.isEmpty else { return }
    let width = Double(model.heads * model.headWidth)
    let layers = Double(model.doubleBlocks * 2 + model.singleBlocks + model.refinerBlocks)
    let parameters = layers * width * width * (8 + 2 * model.mlpRatio)
    let activations =
      Double(max(batch.samples, evaluate.batch) * (videoTokenCount + model.textTokens)) * layers
      * width * (16 + 4 * model.mlpRatio)
    check.require(
      "model", parameters < 1e14 && activations < 1e16,
      "would have some \(parameters) parameters and \(activations) activations of a microbatch, more "
        + "than any machine holds")
  }

  /// The sizes of a model that starts from random weights; a folder brings its own.
  private func validateModel(_ check: inout Checks) {
    check.positive("model.heads", model.heads, upTo: 4_096)
    check.require(
      "model.headWidth", (16...512).contains(model.headWidth) && model.headWidth % 16 == 0,
      "must be a multiple of 16 up to 512 (rotary axes take 2/8, 3/8 and 3/8 of it, in pairs), "
        + "found \(model.headWidth)")
    check.positive("model.doubleBlocks", model.doubleBlocks, upTo: 4_096)
    check.count("model.singleBlocks", model.singleBlocks, upTo: 4_096)
    check.count("model.refinerBlocks", model.refinerBlocks, upTo: 4_096)
    check.require(
      "model.mlpRatio", (0.25...64).contains(model.mlpRatio),
      "must be 0.25 to 64, found \(model.mlpRatio)")
    check.require(
      "model.recomputedShare", model.recomputedShare > 0 && model.recomputedShare <= 1,
      "must be above 0 and at most 1, found \(model.recomputedShare)")
    check.require(
      "model.spatialGain", model.spatialGain > 0, "must be positive, found \(model.spatialGain)")
    check.require(
      "model.spatialGain",
      model.architecture != .vchitect || model.variant == .v2 || model.spatialGain == 1,
      "is \(model.spatialGain), but a block of model.variant v1 has no such factor: set it to 1, or "
        + "model.variant to v2")
    check.require(
      "model.offload", !model.offload || model.recompute,
      "stores the inputs of recomputed blocks: set model.recompute as well")
    check.positive("model.textTokens", model.textTokens, upTo: 65_536)
    check.positive("model.textWidth", model.textWidth, upTo: 65_536)
    check.positive("model.pooledWidth", model.pooledWidth, upTo: 65_536)
    guard (1...4_096).contains(model.heads), (1...512).contains(model.headWidth) else { return }
    check.require(
      "distill.loraRank", distill.loraRank <= model.heads * model.headWidth,
      "must be at most the model width \(model.heads * model.headWidth), found "
        + "\(distill.loraRank)")
  }

  /// What a transformer, of random weights or of a folder, does not do with these settings.
  func problems(with transformer: any TransformerConfiguration) -> [ConfigurationProblem] {
    var check = Checks()
    if let side = transformer.largestLatentSide {
      check.require(
        "data.size", data.size / 4 <= side,
        "is \(data.size), which makes latents of \(data.size / 4) rows, but positions of this "
          + "\(transformer.architecture.rawValue) model reach to \(side): set it to at most \(4 * side)"
      )
    }
    let sharing: [Degree] = [mesh.sp, mesh.generatorSp == .auto ? mesh.sp : mesh.generatorSp]
    check.require(
      "mesh.sequencePlan",
      sharing.allSatisfy { $0 == .fixed(1) } || !keepsTokensTogether(transformer.sharesTextKeys),
      "is spatial, with which gradients of the text's keys are not summed in blocks of tokens, as mesh.sums "
        + "canonical wants them: set it to all, mesh.sp (and mesh.generatorSp) to 1, or mesh.sums to fast"
    )
    return check.problems
  }

  /// Whether canonical sums want all tokens of a microbatch on the ranks that cut weights with each other.
  private func keepsTokensTogether(_ sharesTextKeys: Bool) -> Bool {
    mesh.sums == .canonical && mesh.sequencePlan == .spatial && sharesTextKeys
  }

  /// Axes that stay at 1 because of settings beside them, which `validate` and `problems(with:)` tell.
  /// - Parameter sharesTextKeys: of the transformer.
  func closedAxes(sharesTextKeys: Bool) -> Set<Axis> {
    var closed: Set<Axis> = []
    if keepsTokensTogether(sharesTextKeys) { closed.insert(.sp) }
    if mesh.schedule == .gPipe, batch.microbatches > Self.largestFlight {
      closed.insert(.stages)
    }
    return closed
  }

  /// Whether the method has roles that can be on ranks of their own.
  var canSplitRoles: Bool { distill.method == .w2s || distill.method == .dmd2 }

  /// Share of the blocks that are recomputed.
  package var recomputedShare: Double { model.recompute ? model.recomputedShare : 0 }

  /// What does not fit the ranks that were started.
  package func validate(rankCount: Int) -> [ConfigurationProblem] {
    var check = Checks()
    // A model folder brings its own sizes; the coordinator reads it, and tells what is legal.
    let isOwn = model.checkpoint.isEmpty
    let isRepresentable =
      (1...4_096).contains(model.heads) && (1...512).contains(model.headWidth)
      && (0.25...64).contains(model.mlpRatio)
    var search = meshSearch(
      rankCount: rankCount, headCount: isOwn ? model.heads : rankCount,
      mlpWidth: isOwn && isRepresentable ? transformer.mlpWidth : 0,
      blockCount: isOwn ? transformer.blockStructure.blockCount : 0)
    search.tellsNearest = isOwn
    search.closedAxes = closedAxes(sharesTextKeys: transformer.sharesTextKeys)
    // What is wrong by itself is told once.
    let isSound = [
      batch.microbatches, model.heads, search.dp, search.zero ?? 1, search.ring, search.sp ?? 1,
      search.tp, search.stages, search.generatorDegrees.values.min() ?? 1,
    ].allSatisfy { $0 > 0 }
    if isSound {
      check.problems += search.problems.map { ConfigurationProblem($0.key, $0.message) }
    }
    return check.problems
  }

  /// The layouts that this configuration leaves open for a number of ranks.
  /// - Parameters:
  ///   - mlpWidth: 0: not known yet.
  ///   - blockCount: 0: not known yet.
  func meshSearch(
    rankCount: Int, headCount: Int, mlpWidth: Int = 0, blockCount: Int = 0
  ) -> MeshSearch {
    func fixed(_ degree: Degree) -> Int? {
      if case .fixed(let count) = degree { count } else { nil }
    }
    var search = MeshSearch(
      rankCount: rankCount, microbatchCount: batch.microbatches, headCount: headCount,
      mlpWidth: mlpWidth, dp: fixed(mesh.dp) ?? 1, zero: fixed(mesh.zero),
      ring: fixed(mesh.ring) ?? 1, sp: fixed(mesh.sp), tp: fixed(mesh.tp) ?? 1,
      stages: fixed(mesh.stages) ?? 1, blockCount: blockCount,
      stage: fixed(mesh.zeroStage).flatMap(ZeroStage.init(rawValue:)))
    search.hasCanonicalSums = mesh.sums == .canonical
    search.splitsRoles = mesh.placement == .split
    search.generatorRankCount = fixed(mesh.generatorRanks)
    search.generatorStage = fixed(mesh.generatorZeroStage).flatMap(ZeroStage.init(rawValue:))
    let degrees: [(axis: Axis, degree: Degree)] = [
      (.dp, mesh.generatorDp), (.ring, mesh.generatorRing), (.sp, mesh.generatorSp),
      (.tp, mesh.generatorTp), (.stages, mesh.generatorStages),
    ]
    for (axis, degree) in degrees { search.generatorDegrees[axis] = fixed(degree) }
    return search
  }
}

/// Collects problems.
private struct Checks {
  var problems: [ConfigurationProblem] = []

  mutating func require(_ key: String, _ holds: Bool, _ message: String) {
    if !holds { problems.append(ConfigurationProblem(key, message)) }
  }

  /// Steps and the like, whose products with each other must stay representable.
  static let largestCount = 1 << 31

  mutating func positive(_ key: String, _ value: Int, upTo bound: Int = largestCount) {
    require(key, (1...bound).contains(value), "must be 1 to \(bound), found \(value)")
  }

  mutating func count(_ key: String, _ value: Int, upTo bound: Int = largestCount) {
    require(key, (0...bound).contains(value), "must be 0 to \(bound), found \(value)")
  }

  mutating func fraction(_ key: String, _ value: Double, upTo bound: Double = 1) {
    require(
      key, value >= 0 && value <= bound, "must be a fraction from 0 to \(bound), found \(value)")
  }

  /// At 1 an average would never leave its start.
  mutating func decay(_ key: String, _ value: Double) {
    require(key, value >= 0 && value < 1, "must be at least 0 and below 1, found \(value)")
  }

  mutating func optimizer(
    _ section: String, learningRate: Double, key: String, beta1: Double, beta2: Double,
    weightDecay: Double, clip: Double
  ) {
    require("\(section).\(key)", learningRate > 0, "must be positive, found \(learningRate)")
    for (name, beta) in [("beta1", beta1), ("beta2", beta2)] {
      require(
        "\(section).\(name)", beta >= 0 && beta < 1, "must be at least 0 and below 1, found \(beta)"
      )
    }
    require("\(section).weightDecay", weightDecay >= 0, "must not be negative")
    require("\(section).clip", clip > 0, "must be positive")
  }
}

extension TransformerConfiguration {
  /// Whether keys of the text of first frames serve the tokens of all frames (Vchitect's form v2).
  fileprivate var sharesTextKeys: Bool {
    if case .multimodal(_, .v2, _) = blockStructure { true } else { false }
  }
}
