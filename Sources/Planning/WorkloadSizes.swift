// All that a cost depends on, as plain numbers.

package import MeshLayout

/// Sizes of one transformer, of the clips it sees and of the text it is told.
package struct NetworkSizes: Codable, Equatable, Sendable {
  package var headCount: Int
  package var headWidth: Int
  package var mlpWidth: Int
  package var form: NetworkForm
  /// Of two streams; of a multimodal network all blocks.
  package var doubleBlockCount: Int
  package var singleBlockCount: Int
  package var refinerBlockCount: Int
  package var inChannels: Int
  package var outChannels: Int
  /// Latent elements of a token and channel.
  package var patchVolume: Int
  package var textTokenCount: Int
  package var textWidth: Int
  package var pooledWidth: Int
  package var hasGuidanceEmbedding: Bool
  /// Frames, rows and columns of a latent.
  package var latentFrames: Int
  package var latentHeight: Int
  package var latentWidth: Int
  /// Whether sums over tokens are made in fixed blocks (`mesh.sums: canonical`).
  package var sumsInBlocks = false

  package init(
    headCount: Int, headWidth: Int, mlpWidth: Int,
    form: NetworkForm = .doubleAndSingleStream, doubleBlockCount: Int, singleBlockCount: Int,
    refinerBlockCount: Int, inChannels: Int, outChannels: Int, patchVolume: Int,
    textTokenCount: Int, textWidth: Int, pooledWidth: Int, hasGuidanceEmbedding: Bool,
    latentFrames: Int, latentHeight: Int, latentWidth: Int
  ) {
    self.headCount = headCount
    self.headWidth = headWidth
    self.mlpWidth = mlpWidth
    self.form = form
    self.doubleBlockCount = doubleBlockCount
    self.singleBlockCount = singleBlockCount
    self.refinerBlockCount = refinerBlockCount
    self.inChannels = inChannels
    self.outChannels = outChannels
    self.patchVolume = patchVolume
    self.textTokenCount = textTokenCount
    self.textWidth = textWidth
    self.pooledWidth = pooledWidth
    self.hasGuidanceEmbedding = hasGuidanceEmbedding
    self.latentFrames = latentFrames
    self.latentHeight = latentHeight
    self.latentWidth = latentWidth
  }

  /// In how many slices sums over heads and hidden units are made; nil: at once.
  var sliceCount: Int? {
    sumsInBlocks ? MeshLayout.sliceCount(heads: headCount, hiddenUnits: mlpWidth) : nil
  }

  /// D.
  package var width: Int { headCount * headWidth }
  package var blockCount: Int { doubleBlockCount + singleBlockCount }
  /// Elements of one channel of a latent.
  var latentArea: Int { latentFrames * latentHeight * latentWidth }
  /// L: video tokens of a sample.
  package var videoTokenCount: Int { latentArea / patchVolume }
  /// S: video tokens of a latent frame, where patches are of one frame.
  var frameTokenCount: Int { latentFrames == 0 ? 0 : videoTokenCount / latentFrames }
  /// Tokens of a sample that a block's products see: of a multimodal network each frame has its text.
  var rowCount: Int {
    videoTokenCount + textTokenCount * (form == .doubleAndSingleStream ? 1 : latentFrames)
  }
  /// Elements of a latent.
  var latentCount: Int { outChannels * latentArea }
}

/// A stretch of a network's flat vector that comes and goes as one.
package struct PlannedUnit: Codable, Hashable, Sendable {
  /// A transformer block; else what lies before, between or behind blocks.
  package var isBlock: Bool
  /// Outside of blocks: whether it lies behind them.
  package var isOutput: Bool
  package var elementCount: Int
  /// How tensor parallelism cuts it; needed in layouts with it only.
  package var tensors: [CutTensor]

  package init(
    isBlock: Bool, isOutput: Bool = false, elementCount: Int, tensors: [CutTensor] = []
  ) {
    self.isBlock = isBlock
    self.isOutput = isOutput
    self.elementCount = elementCount
    self.tensors = tensors
  }
}

/// Everything else of a run that costs memory, operations or words.
package struct WorkloadSizes: Codable, Equatable, Sendable {
  package enum Method: String, Codable, Sendable {
    /// W2SVD, and DMD2 as its case without pull.
    case distributionMatching
    case consistency
    /// Nothing is distilled.
    case none
  }

  package var network: NetworkSizes
  /// The flat vector of W, padding included; the generator has as many.
  package var networkUnits: [PlannedUnit]
  /// Bytes of W's weights as products read them; 0: nobody keeps them.
  package var packedWeightByteCount = 0
  /// Whether they are kept however many tokens meet them.
  package var keepsPackedWeights = false
  package var adapterUnits: [PlannedUnit]
  package var adapterRank: Int
  /// 0 without adversarial term.
  package var headElementCount: Int
  package var discriminatorWidth: Int
  /// Elements of texts that are held for the whole run.
  package var storedTextElementCounts: [Int]

  package var microbatchCount: Int
  package var samplesPerMicrobatch: Int
  /// Share of the blocks that run again on the way back.
  package var recomputedShare: Double
  /// Whether inputs of those blocks are kept in a file.
  package var offloadsActivations = false
  package var teachStepCount: Int

  package var method: Method
  package var distillStepCount: Int
  /// K; a rollout from its own samples runs up to K − 1 steps silently.
  package var generatorStepCount: Int
  package var simulatesRollout: Bool
  /// Whether microbatches of a step train different steps of the student.
  package var spreadsDepths: Bool
  /// A generator turn every so many steps.
  package var criticRatio: Int
  /// Whether the weak real DiT runs with the adapter.
  package var pullsRealDiT: Bool
  /// Whether real passes run twice, with and without condition.
  package var isGuided: Bool
  package var hasGroundTruthTerm: Bool
  package var keepsGeneratorAverage: Bool

  /// Clips that are sampled at once in the evaluation.
  package var evaluationBatch: Int
  /// How often that is done for a sampler.
  package var evaluationBatchCount = 1
  package var bucketByteCount: Int
  /// Whether blocks are loaded, and their gradients summed, while others are computed.
  package var overlapsExchange = true
  /// How stages of a pipeline order microbatches: GPipe or 1F1B.
  package var schedule = PipelineSchedule.oneForwardOneBackward
  /// Threads of a rank's kernels.
  package var threadCount = 1

  package init(
    network: NetworkSizes, networkUnits: [PlannedUnit], adapterUnits: [PlannedUnit],
    adapterRank: Int, headElementCount: Int, discriminatorWidth: Int,
    storedTextElementCounts: [Int] = [], microbatchCount: Int, samplesPerMicrobatch: Int,
    recomputedShare: Double, teachStepCount: Int, method: Method, distillStepCount: Int,
    generatorStepCount: Int, simulatesRollout: Bool, spreadsDepths: Bool, criticRatio: Int,
    pullsRealDiT: Bool, isGuided: Bool, hasGroundTruthTerm: Bool, keepsGeneratorAverage: Bool,
    evaluationBatch: Int, bucketByteCount: Int
  ) {
    self.network = network
    self.networkUnits = networkUnits
    self.adapterUnits = adapterUnits
    self.adapterRank = adapterRank
    self.headElementCount = headElementCount
    self.discriminatorWidth = discriminatorWidth
    self.storedTextElementCounts = storedTextElementCounts
    self.microbatchCount = microbatchCount
    self.samplesPerMicrobatch = samplesPerMicrobatch
    self.recomputedShare = recomputedShare
    self.teachStepCount = teachStepCount
    self.method = method
    self.distillStepCount = distillStepCount
    self.generatorStepCount = generatorStepCount
    self.simulatesRollout = simulatesRollout
    self.spreadsDepths = spreadsDepths
    self.criticRatio = criticRatio
    self.pullsRealDiT = pullsRealDiT
    self.isGuided = isGuided
    self.hasGroundTruthTerm = hasGroundTruthTerm
    self.keepsGeneratorAverage = keepsGeneratorAverage
    self.evaluationBatch = evaluationBatch
    self.bucketByteCount = bucketByteCount
  }

  /// Whether W and the generator are kept packed in a layout: where packing is a visible part of a product,
  /// and their elements stay in memory.
  package func keepsPackedWeights(_ shape: MeshShape) -> Bool {
    let isWhole = shape.zeroStage != .parameters || shape.rankCount == shape[.dp]
    return packedWeightByteCount > 0 && isWhole
      && (keepsPackedWeights || rowCount / shape.sequenceDegree <= 4_096)
  }

  /// Rows of a block's products: tokens of a microbatch.
  package var rowCount: Int { samplesPerMicrobatch * network.rowCount }

  package var networkElementCount: Int { networkUnits.reduce(0) { $0 + $1.elementCount } }
  /// How many silent steps the deepest rollout of `peerCount` microbatches that are computed at the same time has, on
  /// average over the depths 0 to K − 1, all alike often.
  static func deepestRollout(stepCount: Int, peerCount: Int) -> Double {
    let deepest = (0..<stepCount).map { draw in
      (0..<peerCount).map { (draw + $0) % stepCount }.max() ?? draw
    }
    return Double(deepest.reduce(0, +)) / Double(stepCount)
  }

  /// The discriminator's head; empty without adversarial term.
  var headUnits: [PlannedUnit] {
    headElementCount > 0 ? [PlannedUnit(isBlock: false, elementCount: headElementCount)] : []
  }

  package var adapterElementCount: Int { adapterUnits.reduce(0) { $0 + $1.elementCount } }
}
