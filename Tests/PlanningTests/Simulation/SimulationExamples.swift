// A transformer and a machine whose times are whole numbers, so that closed forms compare with `==`.

import MeshLayout

@testable import Planning

enum Example {
  /// One operation takes a second; links and memory take none.
  static var machine: MachineModel {
    var machine = MachineModel()
    (machine.productRateFloat32, machine.stepEfficiency) = (1, 1)
    machine.memoryBandwidth = .infinity
    (machine.latencyInside, machine.bandwidthInside) = (0, .infinity)
    machine.exchangeWait = 0
    (machine.latencyBetween, machine.bandwidthBetween) = (0, .infinity)
    return machine
  }

  /// Blocks of `forward` seconds there and twice as much back; 64 parameters each. Latents are empty, so that
  /// only blocks exchange something.
  static func model(blockCount: Int, forward: Double = 1) -> SimulatedModel {
    SimulatedModel(
      ends: SimulatedUnit(parameterCount: 0, linear: 0, isBlock: false),
      blocks: Array(
        repeating: SimulatedUnit(parameterCount: 64, adapterCount: 8, linear: forward),
        count: blockCount),
      headCount: 8, width: 16, samplesPerMicrobatch: 2, tokenCount: 32, latentElementCount: 0)
  }

  static func work(
    blockCount: Int, forward: Double = 1, machine: MachineModel = machine, recomputes: Bool = false
  ) -> SimulatedWork {
    SimulatedWork(
      model: model(blockCount: blockCount, forward: forward), machine: machine,
      recomputedShare: recomputes ? 1 : 0)
  }

  static func layout(
    _ sizes: [Axis: Int], zeroStage: ZeroStage = .optimizer,
    schedule: PipelineSchedule = .oneForwardOneBackward, overlaps: Bool = false,
    ranksPerNode: Int = 64
  ) -> SimulatedLayout {
    SimulatedLayout(
      shape: MeshShape(sizes, zeroStage: zeroStage), schedule: schedule, overlaps: overlaps,
      ranksPerNode: ranksPerNode)
  }

  /// A W2SVD run of a small network.
  static func sizes(_ change: (inout WorkloadSizes) -> Void = { _ in }) -> WorkloadSizes {
    var sizes = WorkloadSizes(
      network: NetworkSizes(
        headCount: 8, headWidth: 16, mlpWidth: 512, doubleBlockCount: 4, singleBlockCount: 12,
        refinerBlockCount: 1, inChannels: 16, outChannels: 16, patchVolume: 4, textTokenCount: 16,
        textWidth: 64, pooledWidth: 64, hasGuidanceEmbedding: false, latentFrames: 4,
        latentHeight: 16, latentWidth: 16),
      networkUnits: [PlannedUnit(isBlock: false, elementCount: 5_600_000)],
      adapterUnits: [PlannedUnit(isBlock: false, elementCount: 300_000)], adapterRank: 8,
      headElementCount: 0, discriminatorWidth: 32, microbatchCount: 16, samplesPerMicrobatch: 1,
      recomputedShare: 1, teachStepCount: 10, method: .distributionMatching, distillStepCount: 10,
      generatorStepCount: 4, simulatesRollout: true, spreadsDepths: true,
      criticRatio: 5, pullsRealDiT: true,
      isGuided: true, hasGroundTruthTerm: false, keepsGeneratorAverage: true, evaluationBatch: 4,
      bucketByteCount: 4 << 20)
    change(&sizes)
    return sizes
  }
}
