// What a run does: plain values with their defaults. `RunConfiguration+Options.swift` gives each
// its key, unit and effect; `validate()` tells every problem at once.

package import Diffusion
package import Exchange
package import Models

/// The resolved tree of one run; enough, with the data, to repeat it.
package struct RunConfiguration: Equatable, Sendable {
  package var seed = 0
  package var data = Data()
  package var model = Model()
  package var compute = Compute()
  package var batch = Batch()
  package var teach = Teach()
  package var distill = Distill()
  package var sample = Sample()
  package var evaluate = Evaluate()
  package var checkpoint = Checkpoint()
  package var mesh = Mesh()
  package var exchange = ExchangeConfiguration()
  package var log = Log()

  package init() {}

  package struct Data: Equatable, Sendable {
    package var paths: [String] = []
    package var folder = "data/portraits"
    package var frameCount = 17
    package var size = 64
    package var shortSide = 72
    package var holdout = 0.2
    package var conditionDropout = 0.5
    package var proceduralPeople = 4
    package var text = ""
  }

  package struct Model: Equatable, Sendable {
    package var checkpoint = ""
    package var architecture = Architecture.hunyuanVideo
    package var variant = VchitectConfiguration.BlockVariant.v2
    package var spatialGain = 1.0
    package var heads = 3
    package var headWidth = 64
    package var doubleBlocks = 2
    package var singleBlocks = 4
    package var refinerBlocks = 1
    package var mlpRatio = 4.0
    package var textTokens = 4
    package var textWidth = 64
    package var pooledWidth = 64
    package var guidanceEmbedding = false
    package var recompute = false
    package var recomputedShare = 1.0
    package var offload = false
    package var offloadFolder = ""
  }

  package struct Compute: Equatable, Sendable {
    package var precision = PrecisionChoice.auto
    package var threads = 1
    package var packedWeights = Packing.auto
  }

  /// Whether weights stay in the words that products read.
  package enum Packing: String, CaseIterable, Sendable {
    case auto, on, off
  }

  /// How the networks' products read their operands.
  package enum PrecisionChoice: String, CaseIterable, Codable, Sendable {
    /// bf16 where every rank's CPU multiplies it itself, else fp32.
    case auto
    case fp32, bf16
  }

  package struct Batch: Equatable, Sendable {
    package var microbatches = 8
    package var samples = 2
  }

  package struct Teach: Equatable, Sendable {
    package var steps = 1_400
    package var learningRate = 2.5e-3
    package var warmupSteps = 50
    package var beta1 = 0.9
    package var beta2 = 0.95
    package var weightDecay = 0.0
    package var clip = 1.0
    package var ema = 0.995
    package var shift = 3.0
  }

  package enum Method: String, CaseIterable, Sendable {
    case w2s, dmd2, lcm, euler
  }

  /// The course of a learning rate over a phase.
  package enum Schedule: String, CaseIterable, Sendable {
    case constant, cosine
  }

  /// Which of the K steps the microbatches of one training step train.
  package enum Depths: String, CaseIterable, Sendable {
    case shared, spread
  }

  package struct Distill: Equatable, Sendable {
    package var method = Method.w2s
    package var steps = 480
    package var generatorSteps = 4
    package var criticRatio = 4
    package var alphaWeak = 0.25
    package var alphaStrong = 1.0
    package var guidance = 1.0
    package var rollout = RolloutSource.simulate
    package var depths = Depths.spread
    package var flowShift = 3.0
    package var scoreShift = 3.0
    package var scoreMinimum = 0.02
    package var scoreMaximum = 0.98
    package var lambdaGroundTruth = 0.0
    package var groundTruthTerm = GroundTruthTerm.matched
    package var lambdaAdversarial = 0.0
    package var lambdaDiscriminator = 1e-2
    package var discriminatorWidth = 128
    package var loraRank = 32
    package var loraAlpha = 32.0
    package var generatorLearningRate = 1.5e-4
    package var schedule = Schedule.cosine
    package var criticLearningRate = 5e-4
    package var beta1 = 0.0
    package var beta2 = 0.999
    package var weightDecay = 0.0
    package var clip = 10.0
    package var ema = 0.95
    package var consistencyEMA = 0.95
  }

  package struct Sample: Equatable, Sendable {
    package var clips = 8
    package var teacherSteps = 28
    package var rule = SamplerRule.renoise
  }

  package struct Evaluate: Equatable, Sendable {
    package var samples = 512
    package var batch = 4
  }

  package struct Checkpoint: Equatable, Sendable {
    package var everySteps = 50
    package var keep = 2
  }

  package struct Mesh: Equatable, Sendable {
    package var dp = Degree.auto
    package var zero = Degree.auto
    package var zeroStage = Degree.auto
    package var sp = Degree.auto
    package var sequencePlan = SequencePlan.spatial
    package var sums = SumOrder.fast
    package var ring = Degree.auto
    package var tp = Degree.auto
    package var stages = Degree.auto
    package var schedule = PipelineOrder.oneForwardOneBackward
    package var stageKind = "pipeline"
    package var placement = Placement.auto
    package var generatorRanks = Degree.auto
    package var generatorZeroStage = Degree.auto
    package var generatorDp = Degree.auto
    package var generatorRing = Degree.auto
    package var generatorSp = Degree.auto
    package var generatorTp = Degree.auto
    package var generatorStages = Degree.auto
    package var memoryPerRank = 0
  }

  /// How sums over the tokens of a microbatch, heads and hidden units are made.
  package enum SumOrder: String, CaseIterable, Sendable {
    case fast, canonical
  }

  /// In which order a pipeline's stages take microbatches.
  package enum PipelineOrder: String, CaseIterable, Sendable {
    case oneForwardOneBackward = "1f1b"
    case gPipe = "gpipe"
  }

  /// Which ranks hold which role while a generator is distilled.
  package enum Placement: String, CaseIterable, Sendable {
    case auto, colocated, split
  }

  /// A degree of parallelism: the coordinator's choice, or a number.
  package enum Degree: Equatable, Sendable, CustomStringConvertible {
    case auto
    case fixed(Int)

    package var description: String {
      switch self {
      case .auto: "auto"
      case .fixed(let degree): "\(degree)"
      }
    }
  }

  package struct Log: Equatable, Sendable {
    package var everySeconds = 10.0
  }
}
