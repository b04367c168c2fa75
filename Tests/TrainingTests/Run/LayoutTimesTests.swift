import DenseKernels
import Exchange
import Foundation
import MeshLayout
import Planning
import ProcessMesh
import TestSupport
import Testing

@testable import Training

/// Two cores of the reference machine, as a probe of two ranks finds them.
private let exampleRates: StepRates = {
  let link = Link(latency: 4e-6, secondsPerByte: 1 / 4e9)
  var rates = StepRates(
    productRate: 300e9, attentionRate: 150e9, memoryBandwidth: 20e9, inside: link, between: link,
    ranksPerNode: 8, codingSecondsPerByte: 0.5e-9)
  (rates.elementwiseSecondsPerByte, rates.weightSecondsPerByte) = (0.1e-9, 0.05e-9)
  return rates
}()

@Suite struct LayoutTimesTests {
  @Test(arguments: [1, 2, 4, 8])
  func `the default job has one rank's bits on powers of two of ranks`(_ rankCount: Int) throws {
    let plan = try Coordinator.plan(
      RunConfiguration(), rankCount: rankCount, rates: exampleRates)
    #expect(plan.shape == MeshShape([.zero: rankCount]))
    #expect(plan.times.compactMap { $0 }.count == 2)
  }

  @Test func `six ranks of eight microbatches share tokens, for they do not divide`() throws {
    let plan = try Coordinator.plan(RunConfiguration(), rankCount: 6, rates: exampleRates)
    #expect(plan.shape == MeshShape([.zero: 2, .sp: 3]))
    #expect(plan.reason.contains("faster than zero 6"))
    #expect(plan.candidates.first?.shape == MeshShape([.zero: 6]))
    let text = plan.text
    #expect(text.contains("s per step (computing") && text.contains("measured: products 300"))
    let decoded = try JSONDecoder().decode(RunPlan.self, from: JSONEncoder().encode(plan))
    #expect(decoded.text == text)
  }

  @Test func `a run goes on with the order of sums that it began with`() throws {
    let configuration = RunConfiguration()
    func shape(_ mesh: String, on rankCount: Int) throws -> MeshShape {
      let noted = try #require(NotedLayout(mesh: mesh))
      return try Coordinator.plan(
        configuration, rankCount: rankCount, rates: exampleRates, noted: noted
      ).shape
    }
    #expect(try shape("zero 6", on: 6) == MeshShape([.zero: 6]))
    #expect(try shape("zero 2 × sp 3", on: 6) == MeshShape([.zero: 2, .sp: 3]))
    // Where tokens are shared, the stage decides whether ranks or microbatches are summed first.
    #expect(
      try shape("zero 2 × ring 3, ZeRO stage 3", on: 6)
        == MeshShape([.zero: 2, .ring: 3], zeroStage: .parameters))
    #expect(try shape("zero 3 × ring 2", on: 6) == MeshShape([.zero: 3, .ring: 2]))
    #expect(try shape("zero 6, ZeRO stage 3", on: 6) == MeshShape([.zero: 6]))
    // On another number of ranks the choice is free.
    #expect(try shape("one rank", on: 6) == MeshShape([.zero: 2, .sp: 3]))
    // What is fixed stays fixed.
    var fixed = configuration
    fixed.mesh.sp = .fixed(1)
    let plan = try Coordinator.plan(
      fixed, rankCount: 6, rates: exampleRates, noted: NotedLayout(mesh: "zero 2 × sp 3"))
    #expect(plan.shape[.sp] == 1)
  }

  @Test func `a resume measures again and takes the order of sums of its checkpoint`() throws {
    try withTemporaryFolder { folder in
      let free = TinyRun.configuration { $0.model.heads = 2 }
      var shared = free
      shared.mesh.sp = .fixed(2)
      _ = try TinyRun.start(shared, in: folder, ranks: 2, stopAt: 3)
      let checkpoint = try TinyRun.newestCheckpoint(in: folder)
      func shape(_ resume: ResumeMode) throws -> MeshShape {
        let plans = try InProcessMesh.run(size: 2) {
          try RunPlan.made(for: free, resume: resume, in: RunFolder(folder.path + "/"), on: $0)
        }
        #expect(plans.allSatisfy { $0.rates != nil && $0.rates == plans[0].rates })
        #expect(plans.allSatisfy { $0.shape == plans[0].shape })
        return plans[0].shape
      }
      #expect(try shape(.auto)[.sp] == 2)
      #expect(try shape(.checkpoint(checkpoint))[.sp] == 2)
      #expect(try shape(.never)[.sp] == 1)
    }
  }

  @Test func `every layout is known again by its words`() {
    for stage in ZeroStage.allCases {
      for degrees: [Axis: Int] in [
        [:], [.zero: 4], [.stages: 2, .zero: 3], [.dp: 2, .zero: 2, .ring: 3, .sp: 5, .tp: 7],
      ] {
        var shape = MeshShape(degrees, zeroStage: stage)
        if shape.rankCount > 2 { shape.generatorRanks = GeneratorRanks(2, zeroStage: stage) }
        let noted = NotedLayout(mesh: shape.description)
        #expect(noted?.rankCount == shape.rankCount, "\(shape)")
        #expect(noted.map { [$0.ring, $0.sp, $0.tp] } == [shape[.ring], shape[.sp], shape[.tp]])
        #expect(noted?.zeroStage == (shape.rankCount == 1 ? .optimizer : stage))
      }
    }
    for words in ["", "zero", "zero x", "pipes 3", "zero 0"] {
      #expect(NotedLayout(mesh: words) == nil, "\(words)")
    }
  }

  @Test func `further axes are opened where they pay, and not where somebody has closed them`()
    throws
  {
    // Two heads: three ranks can share tokens around a ring only.
    var configuration = RunConfiguration()
    configuration.model.heads = 2
    let even = try Coordinator.plan(configuration, rankCount: 6, rates: exampleRates)
    #expect(even.candidates.contains { $0.shape[.ring] > 1 })
    #expect(even.shape[.zero] == 2 && even.shape[.ring] == 3)
    configuration.mesh.ring = .fixed(1)
    configuration.mesh.stages = .fixed(1)
    configuration.mesh.tp = .fixed(1)
    let closed = try Coordinator.plan(configuration, rankCount: 6, rates: exampleRates)
    #expect(closed.shape == MeshShape([.zero: 6]))
  }

  @Test func `a network that fits no other way is run in stages`() throws {
    var configuration = RunConfiguration()
    let usual = try Coordinator.plan(configuration, rankCount: 4, rates: exampleRates)
    let counts = try Coordinator.leastByteCounts(of: configuration, rankCount: 4)
    let least = usual.candidates.compactMap { counts[$0.shape] }.min() ?? 0
    configuration.mesh.memoryPerRank = least - 1
    let plan = try Coordinator.plan(configuration, rankCount: 4, rates: exampleRates)
    #expect(plan.candidates.count <= usual.candidates.count + 3 * 3 + LayoutSearch.largestOpenCount)
    #expect(plan.candidates.contains { $0.shape[.stages] > 1 })
    #expect(plan.fits == plan.candidates.contains { $0.processByteCountPerRank < least })
  }

  @Test func `what ranks wait for each other is found beside what they compute`() throws {
    let waits = try InProcessMesh.run(size: 2) { transport in
      // In turn one rank takes a millisecond and the other none, so that both wait for half of the exchanges.
      var count = transport.rank
      return try ExchangeProbe.measure(on: transport, link: .free, repeatCount: 20) {
        if count % 2 == 0 { Thread.sleep(forTimeInterval: 1e-3) }
        count += 1
      }
    }
    #expect(waits[0] == waits[1])
    // Sleeps of a busy machine are longer, alone as well.
    #expect(waits[0].wait > 0.2e-3 && waits[0].secondsPerByte >= 0, "\(waits)")
    let alone = try InProcessMesh.run(size: 1) { transport in
      try ExchangeProbe.measure(on: transport, link: .free) {}
    }
    #expect(alone == [ExchangeProbe(wait: 0, secondsPerByte: 0)])
  }

  @Test(arguments: [1, 2, 3])
  func `all ranks measure the same rates`(_ rankCount: Int) throws {
    let sizes = ProbedSizes(
      try WorkloadSizes(PlannedCase("stored").configuration), precision: .float32)
    let clock = ContinuousClock()
    let start = clock.now
    let rates = try InProcessMesh.run(size: rankCount) {
      try StepProbe.measure(sizes, exchange: ExchangeConfiguration(), on: $0)
    }
    #expect(rates.allSatisfy { $0 == rates[0] })
    let found = rates[0]
    #expect(found.productRate > 1e6 && found.attentionRate > 1e6)
    #expect(found.memoryBandwidth > 1e6 && found.elementwiseSecondsPerByte > 0)
    #expect(found.weightSecondsPerByte >= 0 && found.tapeOperationSeconds > 1e-8)
    #expect(found.ranksPerNode == rankCount)
    #expect((found.inside.secondsPerByte > 0) == (rankCount > 1))
    // A second is what a start may take; this machine is shared, hence the factor.
    #expect(clock.now - start < .seconds(20))
  }
}
