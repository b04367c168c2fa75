import MeshLayout
import Models
import Testing
import Training

@testable import Benchmarking
@testable import Planning

/// The planner's sizes of a model: its twin counts products where it makes them.
private func sizes(of model: BenchmarkModel) -> NetworkSizes {
  NetworkSizes(
    model.configuration, textTokenCount: model.textTokenCount,
    latentShape: model.latentShape, sequencePlan: .spatial)
}

private func countedForward(_ model: BenchmarkModel, adapterRank: Int = 0) -> Double {
  let ledger = PlannedLedger()
  let weights = ParametersTwin(
    ledger, role: .base, units: [PlannedUnit(isBlock: false, elementCount: 1)],
    group: ShardGroupTwin(
      rank: 0, rankCount: 1, zeroStage: .optimizer,
      exchange: ExchangeTwin(ledger, rank: 0, bucketByteCount: 1 << 20)))
  var network = NetworkTwin(sizes: sizes(of: model), parameters: weights)
  if adapterRank > 0 { network.adapter = UpdateTwin(rank: adapterRank, isTrainable: false) }
  let latents = ledger.allocate(
    model.sampleCount * model.latentShape.reduce(1, *), .common, .activations)
  _ = network.velocity(
    TapeTwin(ledger, role: .base, isRecording: false), noisy: ValueTwin(constant: latents),
    sampleCount: model.sampleCount)
  return ledger.work.operationCount
}

/// Unequal sizes everywhere, so that no letter can stand for another.
private var oddModel: BenchmarkModel {
  var model = BenchmarkModel()
  var configuration = BenchmarkModel.standardConfiguration
  configuration.attentionHeadCount = 3
  configuration.attentionHeadWidth = 20
  configuration.ropeAxesWidths = [4, 6, 10]
  configuration.doubleBlockCount = 2
  configuration.singleBlockCount = 3
  configuration.refinerBlockCount = 2
  configuration.mlpRatio = 2.5
  configuration.textEmbeddingWidth = 14
  configuration.pooledProjectionWidth = 22
  configuration.inChannels = 9
  configuration.outChannels = 4
  configuration.temporalPatchSize = 3
  configuration.guidanceEmbeds = false
  model.configuration = configuration
  (model.latentFrames, model.latentHeight, model.latentWidth) = (6, 8, 10)
  model.textTokenCount = 7
  model.sampleCount = 2
  return model
}

/// The same of Vchitect-2.0.
private func oddVchitect(
  _ variant: VchitectConfiguration.BlockVariant, frames: Int
) -> BenchmarkModel {
  var configuration = VchitectConfiguration()
  configuration.variant = variant
  (configuration.attentionHeadCount, configuration.attentionHeadWidth) = (3, 20)
  configuration.blockCount = 3
  (configuration.textEmbeddingWidth, configuration.pooledProjectionWidth) = (14, 22)
  (configuration.inChannels, configuration.outChannels) = (9, 4)
  var model = BenchmarkModel()
  model.configuration = configuration
  (model.latentFrames, model.latentHeight, model.latentWidth) = (frames, 8, 10)
  (model.textTokenCount, model.sampleCount) = (7, 2)
  return model
}

@Test func `bench-s has as many parameters as diffusers' model`() {
  // sum(p.numel()) of HunyuanVideoTransformer3DModel with the configuration of Benchmarks/peers/step.py.
  #expect(BenchmarkModel().configuration.parameterCount == 42_904_512)
  #expect(BenchmarkModel().videoTokenCount == 1_280)
}

@Test func `the closed form is what a recorded forward pass counts`() {
  let forms = VchitectConfiguration.BlockVariant.allCases.flatMap { variant in
    [1, 6].map { oddVchitect(variant, frames: $0) }
  }
  for model in [BenchmarkModel(), oddModel] + forms {
    #expect(OperationCount(model).forward == countedForward(model))
    #expect(OperationCount(model, adapterRank: 5).forward == countedForward(model, adapterRank: 5))
  }
}

@Test func `bench-s counts what hooks on diffusers' layers count`() {
  // Linear and Conv3d layers by input shapes, scaled_dot_product_attention by 4 L² D; LoRA rank 32.
  let count = OperationCount(BenchmarkModel(), adapterRank: 32)
  #expect(count.linear == 55_990_714_368)
  #expect(count.attention == 31_729_385_472)
  #expect(count.adapter == 6_706_692_096)
}

@Test func `each mode is a sum of passes`() {
  let count = OperationCount(linear: 100, attention: 10, adapter: 1)
  #expect(count.forward == 111)
  #expect(count.trained == 333)
  // The way back: 100 for input gradients, twice 10, twice 1.
  #expect(count.adapterTrained == 111 + 122)
  let model = oddModel
  let plain = OperationCount(model)
  let adapted = OperationCount(model, adapterRank: 32)
  #expect(OperationCount.total(.forward, model) == plain.forward)
  #expect(OperationCount.total(.train, model) == 3 * plain.forward)
  #expect(
    OperationCount.total(.iteration, model)
      == 8 * plain.linear + 9 * plain.attention + 6 * adapted.adapter)
}
