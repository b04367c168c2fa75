import MeshLayout
import Models
import Testing

@testable import Benchmarking
@testable import Planning

/// The planner's sizes of a model: its twin counts products where it makes them.
private func sizes(of model: BenchmarkModel) -> NetworkSizes {
  let configuration = model.configuration
  return NetworkSizes(
    headCount: configuration.attentionHeadCount, headWidth: configuration.attentionHeadWidth,
    mlpWidth: configuration.mlpWidth, doubleBlockCount: configuration.doubleBlockCount,
    singleBlockCount: configuration.singleBlockCount,
    refinerBlockCount: configuration.refinerBlockCount, inChannels: configuration.inChannels,
    outChannels: configuration.outChannels, patchVolume: configuration.patchVolume,
    textTokenCount: model.textTokenCount, textWidth: configuration.textEmbeddingWidth,
    pooledWidth: configuration.pooledProjectionWidth,
    hasGuidanceEmbedding: configuration.guidanceEmbeds, latentFrames: model.latentFrames,
    latentHeight: model.latentHeight, latentWidth: model.latentWidth)
}

private func countedForward(_ model: BenchmarkModel, adapterRank: Int = 0) -> Double {
  let ledger = PlannedLedger()
  let weights = ParametersTwin(
    ledger, role: .base, units: [PlannedUnit(isBlock: false, elementCount: 1)],
    group: ShardGroupTwin(
      rank: 0, rankCount: 1, stage: .optimizer,
      exchange: ExchangeTwin(ledger, rank: 0, bucketByteCount: 1 << 20)))
  var network = NetworkTwin(sizes: sizes(of: model), parameters: weights)
  if adapterRank > 0 { network.adapter = UpdateTwin(rank: adapterRank, isTrainable: false) }
  let latents = ledger.allocate(
    model.sampleCount * model.latentShape.reduce(1, *), .common, .activations)
  _ = network.velocity(
    TapeTwin(ledger, role: .base, isRecording: false), noisy: ValueTwin(constant: latents),
    sampleCount: model.sampleCount)
  return ledger.operationCount
}

/// Unequal sizes everywhere, so that no letter can stand for another.
private var oddModel: BenchmarkModel {
  var model = BenchmarkModel()
  model.configuration.attentionHeadCount = 3
  model.configuration.attentionHeadWidth = 20
  model.configuration.ropeAxesWidths = [4, 6, 10]
  model.configuration.doubleBlockCount = 2
  model.configuration.singleBlockCount = 3
  model.configuration.refinerBlockCount = 2
  model.configuration.mlpRatio = 2.5
  model.configuration.textEmbeddingWidth = 14
  model.configuration.pooledProjectionWidth = 22
  model.configuration.inChannels = 9
  model.configuration.outChannels = 4
  model.configuration.temporalPatchSize = 3
  model.configuration.guidanceEmbeds = false
  (model.latentFrames, model.latentHeight, model.latentWidth) = (6, 8, 10)
  model.textTokenCount = 7
  model.sampleCount = 2
  return model
}

@Test func `bench-s has as many parameters as diffusers' model`() {
  // sum(p.numel()) of HunyuanVideoTransformer3DModel with the configuration of Benchmarks/peers/step.py.
  #expect(BenchmarkModel().configuration.parameterCount == 42_904_512)
  #expect(BenchmarkModel().videoTokenCount == 1_280)
}

@Test func `the closed form is what a recorded forward pass counts`() {
  for model in [BenchmarkModel(), oddModel] {
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
