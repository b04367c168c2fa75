import MeshLayout
import Testing

@testable import Planning

/// A small network, changed by `change`.
private func sizes(_ change: (inout WorkloadSizes) -> Void = { _ in }) -> WorkloadSizes {
  var sizes = WorkloadSizes(
    network: NetworkSizes(
      headCount: 2, headWidth: 16, mlpWidth: 128, doubleBlockCount: 2, singleBlockCount: 3,
      refinerBlockCount: 1, inChannels: 33, outChannels: 16, patchVolume: 4, textTokenCount: 3,
      textWidth: 24, pooledWidth: 16, hasGuidanceEmbedding: false, latentFrames: 2,
      latentHeight: 8, latentWidth: 8),
    networkUnits: [PlannedUnit(isBlock: false, elementCount: 150_000)],
    adapterUnits: [PlannedUnit(isBlock: false, elementCount: 9_000)], adapterRank: 4,
    headElementCount: 0, discriminatorWidth: 32, microbatchCount: 8, samplesPerMicrobatch: 2,
    recomputedShare: 0,
    teachStepCount: 10, method: .distributionMatching, distillStepCount: 10,
    generatorStepCount: 4, simulatesRollout: true, spreadsDepths: true, criticRatio: 4,
    pullsRealDiT: true,
    isGuided: false, hasGroundTruthTerm: false, keepsGeneratorAverage: true, evaluationBatch: 4,
    bucketByteCount: 4 << 20)
  change(&sizes)
  return sizes
}

private func costs(_ sizes: WorkloadSizes, ranks: Int = 1) throws -> RunCosts {
  try CostModel.costs(of: sizes, shape: MeshShape([.zero: ranks]))
}

@Test(arguments: [
  // Requests and blocks of the arena: at least 64 bytes, then steps of a 64th of the power below.
  (0, 64), (16, 64), (17, 128), (1_024, 4_096), (1_025, 4_160), (1_000_000, 4_030_464),
])
func `a block is the request rounded up`(elementCount: Int, byteCount: Int) {
  #expect(blockByteCount(elementCount: elementCount) == byteCount)
}

@Test func `state is sharded and weights are not`() throws {
  let one = try costs(sizes()).memory[0]
  let four = try costs(sizes(), ranks: 4).memory
  for role in [PlannedRole.base, .generator] {
    let sharded = four.map { $0.peakByteCount(role, .optimizer) }
    // Shards are whole blocks of 4,096 elements, and each of the two moments is rounded up.
    #expect(abs(sharded.reduce(0, +) - one.peakByteCount(role, .optimizer)) <= 8 * 4 * 4_096)
    #expect(
      four.allSatisfy {
        $0.peakByteCount(role, .parameters) == one.peakByteCount(role, .parameters)
      })
  }
}

@Test func `real and fake share one W`() throws {
  let memory = try costs(sizes()).memory[0]
  #expect(memory.peakByteCount(.base, .parameters) == blockByteCount(elementCount: 150_000))
  #expect(memory.peakByteCount(.fake, .parameters) == blockByteCount(elementCount: 9_000))
}

@Test(arguments: [(1, 1), (2, 2), (3, 2), (4, 3), (8, 4), (16, 5)])
func `gradient buffers grow with the logarithm of the microbatches`(
  microbatchCount: Int, buffers: Int
) throws {
  let memory = try costs(sizes { $0.microbatchCount = microbatchCount }).memory[0]
  #expect(
    memory.peakByteCount(.base, .gradients) == buffers * blockByteCount(elementCount: 150_000))
}

@Test func `recomputation takes less memory and more operations`() throws {
  let stored = try costs(sizes())
  let recomputed = try costs(sizes { $0.recomputedShare = 1 })
  for phase in 0..<2 {
    #expect(
      recomputed.phases[phase].memory[0].totalPeakByteCount
        < stored.phases[phase].memory[0].totalPeakByteCount)
    #expect(
      recomputed.phases[phase].operationsPerStep[0] > stored.phases[phase].operationsPerStep[0])
  }
}

@Test func `operations of a step do not depend on the number of ranks`() throws {
  let one = try costs(sizes())
  let four = try costs(sizes(), ranks: 4)
  for (single, spread) in zip(one.phases, four.phases) where single.stepCount > 0 {
    // Whole numbers below 2^53, except for the mean depth: n·eps of a short sum.
    let sum = spread.operationsPerStep.reduce(0, +)
    #expect(abs(sum - single.operationsPerStep[0]) <= 1e-12 * sum)
  }
}

@Test func `a linear layer with trained weights costs three products`() {
  let ledger = PlannedLedger()
  let tape = TapeTwin(ledger, role: .base)
  let x = tape.parameter(6 * 5, isTrainable: true, of: tape.result(6 * 5))
  let y = tape.linear(x, from: 5, to: 7, isTrainable: true)
  #expect(ledger.work.operationCount == 2 * 6 * 5 * 7)
  tape.backward([y])
  #expect(ledger.work.operationCount == 3 * 2 * 6 * 5 * 7)
}

@Test func `everything is given back when its last reference is gone`() {
  let ledger = PlannedLedger()
  do {
    let tape = TapeTwin(ledger, role: .fake)
    let x = tape.parameter(640, isTrainable: true, of: tape.result(640))
    let y = tape.apply(tape.apply(x))
    tape.backward([y])
  }
  let before = ledger.memory.totalPeakByteCount
  // Only if all was given back does as much fit in again without a new peak.
  _ = ledger.allocate(before / 4, .common, .workspace)
  #expect(ledger.memory.totalPeakByteCount == before)
}

@Test(arguments: 1...8)
func `every update sends each word to its owner and back to everyone`(rankCount: Int) throws {
  // ZeRO (1910.02054) §7, stage 1, over all ranks: (R − 1) n words each way.
  let teach = try costs(sizes(), ranks: rankCount).phases[0]
  #expect(teach.updateByteCountPerStep == 2 * (rankCount - 1) * 150_000 * 4)
}

@Test func `more ranks than microbatches have no plan`() {
  #expect(throws: MeshLayoutError.self) { try costs(sizes(), ranks: 9) }
}
