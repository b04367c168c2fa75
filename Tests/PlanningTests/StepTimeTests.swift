import MeshLayout
import Testing

@testable import Planning

/// Nothing takes time but what a test says.
private func rates(_ change: (inout StepRates) -> Void = { _ in }) -> StepRates {
  var rates = StepRates(
    productRate: .infinity, attentionRate: .infinity, memoryBandwidth: .infinity, inside: .free,
    between: .free, ranksPerNode: 8, codingSecondsPerByte: 0)
  change(&rates)
  return rates
}

private func sizes(_ change: (inout WorkloadSizes) -> Void = { _ in }) -> WorkloadSizes {
  var sizes = WorkloadSizes(
    network: NetworkSizes(
      headCount: 2, headWidth: 16, mlpWidth: 128, doubleBlockCount: 2, singleBlockCount: 3,
      refinerBlockCount: 1, inChannels: 33, outChannels: 16, patchVolume: 4, textTokenCount: 3,
      textWidth: 24, pooledWidth: 16, hasGuidanceEmbedding: false, latentFrames: 2,
      latentHeight: 8, latentWidth: 8),
    networkUnits: [PlannedUnit(isBlock: false, elementCount: 1 << 20)],
    adapterUnits: [PlannedUnit(isBlock: false, elementCount: 9_000)], adapterRank: 4,
    headElementCount: 0, discriminatorWidth: 32, microbatchCount: 8, samplesPerMicrobatch: 2,
    recomputedShare: 0, teachStepCount: 10, method: .distributionMatching, distillStepCount: 10,
    generatorStepCount: 4, simulatesRollout: true, spreadsDepths: true, criticRatio: 4,
    pullsRealDiT: true, isGuided: false, hasGroundTruthTerm: false, keepsGeneratorAverage: true,
    evaluationBatch: 4, bucketByteCount: 1 << 20)
  change(&sizes)
  return sizes
}

@Suite struct StepTimeTests {
  private func teach(_ shape: MeshShape, _ rates: StepRates) throws -> StepTime {
    let costs = try CostModel.costs(of: sizes(), shape: shape)
    return try #require(costs.times(shape: shape, rates: rates)[0])
  }

  @Test func `computing is products, attention and elementwise bytes of the busiest rank`() throws {
    let shape = MeshShape([.zero: 3])
    let costs = try CostModel.costs(of: sizes(), shape: shape)
    let work = costs.phases[0].work
    // 8 microbatches over 3 ranks: 3, 3, 2.
    let most = work.map(\.operationCount).max() ?? 0
    #expect(work.map(\.operationCount).min() == most * 2 / 3)
    let busiest = try #require(work.first { $0.operationCount == most })
    let attention = busiest.attentionOperationCount
    #expect(attention > 0 && attention < most && busiest.movedByteCount > 0)
    let time = try teach(
      shape,
      rates {
        $0.productRate = 2e9
        $0.attentionRate = 1e9
        $0.elementwiseSecondsPerByte = 1e-10
      })
    let expected = (most - attention) / 2e9 + attention / 1e9 + busiest.movedByteCount / 1e10
    // A handful of roundings.
    #expect(abs(time.computing - expected) < 1e-12 * expected)
    #expect(time.seconds == time.computing)
  }

  @Test func `an optimizer reads and writes 40 bytes of each own element with an average`() throws {
    let time = try teach(MeshShape([.zero: 4]), rates { $0.memoryBandwidth = 1e9 })
    #expect(time.optimizer == 40 * Double(1 << 18) / 1e9)
    // One of two partial sums is added to the other.
    #expect(time.computing == 12 * Double(1 << 20) / 1e9)
  }

  @Test(arguments: [2, 4, 8])
  func `an update is a reduce-scatter and an all-gather of one hop`(_ rankCount: Int) throws {
    let shape = MeshShape([.zero: rankCount])
    // Specs of distributed systems, §2: (p − 1) a + (p − 1)/p m b each; buckets are messages of their own.
    let (p, m, buckets) = (Double(rankCount), 4 * Double(1 << 20), 4.0)
    let latency = try teach(shape, rates { $0.inside.latency = 1e-3 })
    #expect(abs(latency.updates - 2 * buckets * (p - 1) * 1e-3) < 1e-12)
    let bytes = try teach(
      shape,
      rates {
        $0.inside = Link(latency: 0, secondsPerByte: 1e-9)
        $0.codingSecondsPerByte = 1e-9
      })
    #expect(abs(bytes.updates - 2 * (p - 1) / p * m * 2e-9) < 1e-12)
    #expect(bytes.tokens == 0)
  }

  @Test func `what travels beside computing between nodes hides behind it`()
    throws
  {
    func times(
      _ overlaps: Bool, _ stage: ZeroStage, productRate: Double
    ) throws -> (time: StepTime, work: StepWork) {
      let shape = MeshShape([.zero: 2], zeroStage: stage)
      let sizes = sizes {
        $0.overlapsExchange = overlaps
        $0.networkUnits = (0..<5).map { _ in PlannedUnit(isBlock: true, elementCount: 1 << 18) }
      }
      let costs = try CostModel.costs(of: sizes, shape: shape)
      let rates = rates {
        $0.productRate = productRate
        $0.ranksPerNode = 1
        $0.between = Link(latency: 0, secondsPerByte: 1e-9)
        $0.codingSecondsPerByte = 1e-10
      }
      return (
        try #require(costs.times(shape: shape, rates: rates)[0]),
        try #require(costs.phases[0].work.first)
      )
    }
    let (slow, work) = try times(true, .parameters, productRate: 1e8)
    let exposed = try times(false, .parameters, productRate: 1e8).time
    #expect(slow.updates < exposed.updates && slow.computing == exposed.computing)
    // Of all that is sent the first block of the first pass alone is waited for: half of it, 4 bytes an element.
    #expect(work.updateByteCount - work.besideUpdateByteCount == 4 * Double(1 << 17))
    let all = work.updateByteCount * 1.1e-9
    #expect(abs(slow.updates - (all - work.besideUpdateByteCount * 1e-9)) < 1e-9 * all)
    let fast = try times(true, .parameters, productRate: 1e15).time
    #expect(abs(fast.updates - (all - StepTime.hiddenShare * fast.computing)) < 1e-9 * all)
    // At stage 2 gradients alone.
    let middle = try times(true, .gradients, productRate: 1e8).time
    #expect(middle.updates < (try times(false, .gradients, productRate: 1e8)).time.updates)
    let low = try times(true, .optimizer, productRate: 1e9).time
    #expect(low.updates == (try times(false, .optimizer, productRate: 1e9)).time.updates)
  }

  @Test func `ranks of other nodes are reached by the slow link`() {
    let rates = rates {
      $0.ranksPerNode = 4
      $0.inside = Link(latency: 1, secondsPerByte: 0)
      $0.between = Link(latency: 100, secondsPerByte: 0)
    }
    func seconds(_ groupSize: Int) -> Double {
      rates.sendSeconds(
        byteCount: 0, messageCount: Double(groupSize - 1), groupSize: groupSize)
    }
    #expect(seconds(1) == 0 && seconds(2) == 1 && seconds(4) == 3)
    // 3 peers here, 4 there.
    #expect(abs(seconds(8) - 403) < 1e-9)
  }

  @Test func `shared tokens are sent to the neighbors`() throws {
    let link = rates { $0.inside.latency = 1e-6 }
    #expect(try teach(MeshShape([.zero: 2]), link).tokens == 0)
    // Each of 5 blocks exchanges q, k, v and the output, there and back, and a pass gathers the velocity.
    let messages = 8.0 * (5 * 8 + 1)
    #expect(abs(try teach(MeshShape([.sp: 2]), link).tokens - messages * 1e-6) < 1e-12)
  }

  @Test
  func `weights, sums of gradients and operations of the tape take as long for half of the tokens`()
    throws
  {
    func computing(_ shape: MeshShape, _ change: (inout StepRates) -> Void) throws -> Double {
      try teach(shape, rates(change)).computing
    }
    let (whole, shared, cut) = (
      MeshShape(), MeshShape([.sp: 2]), MeshShape([.tp: 2], zeroStage: .parameters)
    )
    let weights = { (rates: inout StepRates) in rates.weightSecondsPerByte = 1e-9 }
    #expect(try computing(shared, weights) == computing(whole, weights))
    #expect(try computing(MeshShape([.zero: 2]), weights) == computing(whole, weights) / 2)
    // Of all weights those outside of blocks alone are not cut.
    let share = try computing(cut, weights) / computing(whole, weights)
    #expect(share > 0.5 && share < 0.75, "\(share)")
    let sums = { (rates: inout StepRates) in rates.memoryBandwidth = 1e9 }
    // Of 8 partial sums 7 are added to another one.
    #expect(try computing(whole, sums) == 7 * 12 * Double(1 << 20) / 1e9)
    #expect(try computing(shared, sums) == computing(whole, sums))
    let operations = { (rates: inout StepRates) in rates.tapeOperationSeconds = 1e-6 }
    // Exchanges are operations as well.
    #expect(try computing(shared, operations) > computing(whole, operations))
    #expect(try computing(MeshShape([.zero: 2]), operations) == computing(whole, operations) / 2)
  }

  /// The teach step of a network in blocks, of which nothing is distilled.
  private func taught(
    _ degrees: [Axis: Int], _ stage: ZeroStage, _ rates: StepRates
  ) throws -> StepTime {
    let shape = MeshShape(degrees, zeroStage: stage)
    let sizes = sizes {
      $0.networkUnits = (0..<5).map { _ in PlannedUnit(isBlock: true, elementCount: 1 << 18) }
      ($0.method, $0.distillStepCount) = (.none, 0)
    }
    let costs = try CostModel.costs(of: sizes, shape: shape)
    return try #require(costs.times(shape: shape, rates: rates)[0])
  }

  @Test func `ranks lose a wait at each exchange, whatever its bytes`() throws {
    func waits(_ degrees: [Axis: Int], _ stage: ZeroStage = .optimizer) throws -> Double {
      let time = try taught(degrees, stage, rates { $0.exchangeWait = 1e-6 })
      #expect(time.seconds == time.tokens, "\(degrees)")
      return (time.tokens * 1e6 / 8).rounded()
    }
    // Of a microbatch: 2 blocks of two streams, 3 of one, and the velocity.
    #expect(try waits([.zero: 2]) == 0)
    // q, k, v and the output, there and back.
    #expect(try waits([.sp: 2]) == 41)
    // Two hops there, and of keys and values with their gradients four back.
    #expect(try waits([.ring: 3]) == 31)
    // Inputs, outputs and modulations of each stream there and back, inputs once more.
    let (ofTwoStreams, ofOne) = (10.0 + 14, 3.0 + 4)
    #expect(try waits([.tp: 2], .parameters) == 2 * ofTwoStreams + 3 * ofOne + 1)
    // The first stage waits for the velocity and a gradient, the last one for a state; a middle one for all.
    #expect(try waits([.stages: 2], .parameters) == 2)
    #expect(try waits([.stages: 3], .parameters) == 3)
  }

  @Test func `blocks are copied out of the own shard, and gradients into it`() throws {
    func copied(_ degrees: [Axis: Int], _ stage: ZeroStage) throws -> Double {
      try taught(degrees, stage, rates { $0.memoryBandwidth = 1e9 }).updates
    }
    // 4 microbatches a rank: 5 blocks there the first time, 3 the seven other ways, since two are in memory still, makes
    // 26; and 5 gradients each.
    let expected = (26.0 + 20) * 8 * Double(1 << 17) / 1e9
    #expect(abs(try copied([.zero: 2], .parameters) - expected) < 1e-12)
    #expect(try copied([.zero: 2], .optimizer) == 0)
    // A stage of a pipeline copies all it has; with 3 and 2 blocks, nothing beside: 8 microbatches.
    let gradients = 8.0 * 3 * 8 * Double(1 << 18) / 1e9
    #expect(try copied([.stages: 2], .parameters) > gradients)
  }

  @Test func `a job takes the steps of all its phases`() throws {
    let shape = MeshShape([.zero: 2])
    let costs = try CostModel.costs(of: sizes(), shape: shape)
    let rates = rates { $0.productRate = 1e9 }
    let times = costs.times(shape: shape, rates: rates)
    #expect(times.map { $0 != nil } == [true, true, false])
    let sum = times.compactMap { $0?.seconds }.reduce(0) { $0 + 10 * $1 }
    #expect(abs(costs.seconds(shape: shape, rates: rates) - sum) < 1e-9 * sum)
  }
}

@Suite struct LayoutPickTests {
  private func offer(
    _ degrees: [Axis: Int], stage: ZeroStage = .optimizer, bytes: Int = 100, _ seconds: Double?,
    isCanonical: Bool = false
  ) -> LayoutOffer {
    let shape = MeshShape(degrees, zeroStage: stage)
    return LayoutOffer(
      shape: shape, byteCount: bytes, seconds: seconds,
      hasOtherBits: shape.sequenceDegree > 1 && !isCanonical)
  }

  private func index(_ offers: [LayoutOffer], limit: Int? = nil) -> Int? {
    LayoutPick.choose(offers, limit: limit)?.index
  }

  @Test func `other bits are taken for a tenth of the time, not for less`() {
    let zero = offer([.zero: 6], 100)
    #expect(index([zero, offer([.zero: 2, .sp: 3], 91)]) == 0)
    #expect(index([zero, offer([.zero: 2, .sp: 3], 89)]) == 1)
    #expect(index([zero, offer([.ring: 6], 89)]) == 1)
    #expect(index([zero, offer([.zero: 3, .tp: 2], stage: .parameters, 85)]) == 0)
    // With canonical sums nothing has other bits.
    #expect(index([zero, offer([.zero: 2, .sp: 3], 99, isCanonical: true)]) == 1)
    // Bits do not count where all have other ones.
    #expect(index([offer([.zero: 3, .sp: 2], 100), offer([.sp: 6], 99)]) == 1)
  }

  @Test func `a higher stage is taken for a twentieth of the time, not for less`() {
    let low = offer([.zero: 4], 100)
    #expect(index([low, offer([.zero: 4], stage: .gradients, 96)]) == 0)
    #expect(index([low, offer([.zero: 4], stage: .gradients, 94)]) == 1)
    #expect(index([low, offer([.zero: 4], stage: .parameters, 91)]) == 0)
    #expect(index([low, offer([.stages: 2, .zero: 2], stage: .parameters, 87)]) == 0)
  }

  @Test func `without times the first that fits is taken, and the leanest where none does`() {
    let offers = [
      offer([.zero: 4], bytes: 300, nil), offer([.zero: 4], stage: .gradients, bytes: 200, nil),
      offer([.zero: 4], stage: .parameters, bytes: 100, nil),
    ]
    #expect(index(offers) == 0)
    #expect(index(offers, limit: 250) == 1)
    #expect(index(offers, limit: 50) == 2)
    #expect(LayoutPick.choose([], limit: nil) == nil)
  }

  @Test func `what does not fit is not taken, however fast`() {
    let offers = [offer([.zero: 4], bytes: 300, 1), offer([.sp: 4], bytes: 100, 99)]
    let pick = LayoutPick.choose(offers, limit: 200)
    #expect(pick?.index == 1 && pick?.reason.contains("fit") == true)
  }

  @Test func `a load is uneven where microbatches do not divide, and stages fill`() {
    func load(_ degrees: [Axis: Int]) -> Double {
      LayoutPick.loadStretch(MeshShape(degrees), microbatchCount: 8)
    }
    #expect(load([.zero: 8]) == 1 && load([.zero: 2, .sp: 3]) == 1)
    #expect(load([.zero: 6]) == 1.5)
    #expect(load([.stages: 2]) == 9.0 / 8)
    #expect(load([.stages: 2, .zero: 4]) == 1.5)
  }
}
