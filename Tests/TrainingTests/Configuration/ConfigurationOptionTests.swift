import Exchange
import Foundation
import Testing

@testable import Training

@Suite struct ConfigurationOptionTests {
  /// Every key there is. A new one is a decision: add it here, and to the documentation.
  static let keys = [
    "seed",
    "data.paths", "data.folder", "data.frameCount", "data.size", "data.shortSide", "data.holdout",
    "data.conditionDropout", "data.proceduralPeople", "data.text",
    "model.checkpoint", "model.architecture", "model.variant", "model.spatialGain", "model.heads",
    "model.headWidth", "model.doubleBlocks", "model.singleBlocks", "model.refinerBlocks",
    "model.mlpRatio", "model.textTokens",
    "model.textWidth", "model.pooledWidth", "model.guidanceEmbedding", "model.recompute",
    "model.recomputedShare", "model.offload", "model.offloadFolder",
    "compute.precision", "compute.threads", "compute.packedWeights",
    "batch.microbatches", "batch.samples",
    "teach.steps", "teach.learningRate", "teach.warmupSteps", "teach.beta1", "teach.beta2",
    "teach.weightDecay", "teach.clip", "teach.ema", "teach.shift",
    "distill.method", "distill.steps", "distill.generatorSteps", "distill.criticRatio",
    "distill.alphaWeak", "distill.alphaStrong", "distill.guidance", "distill.rollout",
    "distill.depths",
    "distill.flowShift", "distill.scoreShift", "distill.scoreMinimum", "distill.scoreMaximum",
    "distill.lambdaGroundTruth", "distill.groundTruthTerm", "distill.lambdaAdversarial",
    "distill.lambdaDiscriminator", "distill.discriminatorWidth", "distill.loraRank",
    "distill.loraAlpha",
    "distill.generatorLearningRate", "distill.schedule", "distill.criticLearningRate",
    "distill.beta1",
    "distill.beta2", "distill.weightDecay", "distill.clip", "distill.ema",
    "distill.consistencyEMA",
    "sample.clips", "sample.teacherSteps", "sample.rule",
    "evaluate.samples", "evaluate.batch",
    "checkpoint.everySteps", "checkpoint.keep",
    "mesh.dp", "mesh.zero", "mesh.zeroStage", "mesh.sp", "mesh.sequencePlan", "mesh.sums",
    "mesh.ring",
    "mesh.tp", "mesh.stages", "mesh.schedule", "mesh.stageKind", "mesh.placement",
    "mesh.generatorRanks", "mesh.generatorZeroStage", "mesh.generatorDp", "mesh.generatorRing",
    "mesh.generatorSp", "mesh.generatorTp", "mesh.generatorStages", "mesh.memoryPerRank",
    "exchange.codec", "exchange.bucketByteCount", "exchange.overlap",
    "log.everySeconds",
  ]

  @Test func `the keys are those that were decided on`() {
    #expect(RunConfiguration.options.map(\.key) == Self.keys)
    #expect(Set(Self.keys).count == Self.keys.count)
  }

  /// A configuration whose values all differ from the defaults; some break rules.
  static let changed: RunConfiguration = {
    var result = RunConfiguration()
    for option in RunConfiguration.options {
      let text = option.text(result)
      let values: [ConfigurationValue] =
        switch text {
        case "true": [.scalar("false")]
        case "false": [.scalar("true")]
        case "auto": ["3", "planes", "colocated", "bf16", "off"].map { .scalar($0) }
        case "[]": [.list(["a b.mp4", "c\"d\\e, f.mp4"])]
        default:
          if let number = Int(text) {
            [.scalar("\(number + 3)")]
          } else if let number = Double(text) {
            [.scalar("\(number / 3 + 0.1)")]
          } else {
            [
              "vchitect", "v1", "all", "dmd2", "data", "shared", "constant", "euler", "plain",
              "off", "gpipe", "canonical", "x: \"y\" # z\\",
            ].map { .scalar($0) }
          }
        }
      _ = values.first { option.set(&result, $0) == nil }
    }
    return result
  }()

  @Test func `every option reads back its own text`() {
    for option in RunConfiguration.options {
      for configuration in [RunConfiguration(), Self.changed] {
        guard let again = try? ConfigurationReader.values(ofYAML: configuration.yaml) else {
          Issue.record("no YAML")
          return
        }
        var copy = RunConfiguration()
        let value = again[option.key]
        #expect(value != nil, "\(option.key)")
        if let value { #expect(option.set(&copy, value) == nil, "\(option.key)") }
        #expect(option.text(copy) == option.text(configuration), "\(option.key)")
      }
    }
  }

  @Test func `the changed configuration differs in every option but those of one value`() {
    let defaults = RunConfiguration()
    let same = RunConfiguration.options.filter { $0.text(defaults) == $0.text(Self.changed) }
    #expect(same.map(\.key) == ["mesh.stageKind"])
  }

  @Test func `the resolved YAML reads back to the same configuration`() throws {
    var configuration = RunConfiguration()
    #expect(try ConfigurationReader.read(yaml: configuration.yaml) == configuration)
    configuration.data.paths = ["with space.mp4", "quote\".mp4", "back\\slash.mp4", "ü: #.mp4"]
    configuration.data.text = "yes"
    configuration.teach.learningRate = 1.0 / 3e5
    configuration.distill.method = .lcm
    configuration.exchange.codec = .off
    configuration.mesh.zero = .fixed(4)
    #expect(try ConfigurationReader.read(yaml: configuration.yaml) == configuration)
  }

  @Test func `every option says what it does`() {
    for option in RunConfiguration.options {
      #expect(option.effect.hasSuffix("."), "\(option.key)")
    }
  }
}
