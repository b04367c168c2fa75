import MeshLayout
import ProcessMesh
import Synchronization
import Testing

@testable import Training

@Suite struct RunContextTests {
  /// What all ranks agree on when microbatch i has these losses and readings.
  private func agreements(
    ranks: Int, stage: ZeroStage = .optimizer, losses: [Double], readings: [String: [Double]]
  ) throws -> [RunContext.StepAgreement] {
    let configuration = TinyRun.configuration { $0.batch.microbatches = losses.count }
    return try InProcessMesh.run(size: ranks) { transport in
      let context = try RunContext(
        configuration: configuration, folder: RunFolder("/nowhere/"), transport: transport,
        shape: MeshShape([.zero: ranks], zeroStage: stage), reporter: Reporter(),
        isStopRequested: { transport.rank == 1 })
      func own(_ values: [Double]) -> [Double] { context.microbatches.map { values[$0] } }
      return try context.agreeOnStep(losses: own(losses), readings: readings.mapValues(own))
    }
  }

  @Test(arguments: 1...5)
  func `losses and readings of all microbatches meet in order on every rank`(_ ranks: Int) throws {
    // Rounding makes the sums of these depend on their order.
    let losses = (1...5).map { 1 / Double($0) }
    let readings = ["a": losses.map { $0 * 1e16 }, "b": [0.0, 3, .infinity, 0, 4]]
    for agreement in try agreements(ranks: ranks, losses: losses, readings: readings) {
      #expect(agreement.losses == losses)
      #expect(agreement.readings == readings)
      #expect(agreement.meanLoss == treeReduce(losses, combine: +).map { $0 / 5 })
      #expect(agreement.sum(of: "a") == treeReduce(readings["a"] ?? [], combine: +))
      #expect(agreement.mean(of: "a") == agreement.sum(of: "a") / 5)
      #expect(agreement.mean(of: "b") == .infinity)
      #expect(agreement.sum(of: "c") == 0 && agreement.mean(of: "c") == 0)
      #expect(agreement.shouldStop == (ranks > 1))
    }
  }

  @Test func `losses meet in order where microbatches are dealt out in rounds`() throws {
    let losses = (1...6).map { 1 / Double($0) }
    for ranks in [1, 2, 3, 6] {
      let agreements = try agreements(
        ranks: ranks, stage: .gradients, losses: losses, readings: ["a": losses])
      #expect(agreements.allSatisfy { $0.losses == losses && $0.readings == ["a": losses] })
    }
  }

  @Test func `what one rank fails at alone ends all of them at the next agreement`() throws {
    let ends = try InProcessMesh.run(size: 3) { transport -> [String] in
      let context = try RunContext(
        configuration: TinyRun.configuration(), folder: RunFolder("/nowhere/"),
        transport: transport, reporter: Reporter(), isStopRequested: { false })
      var attemptCount = 0
      for _ in 0..<2 {
        context.attempt {
          attemptCount += 1
          if transport.rank == 1 { throw JobError(exitCode: .other, "the disk is full") }
        }
      }
      do {
        _ = try context.agreeOnStep(losses: [])
        return ["agreed"]
      } catch let error as JobError {
        let isOwn = (try? context.throwFailure()) == nil
        return [error.message, "\(isOwn)", "\(attemptCount)"]
      }
    }
    let other = ["the disk is full", "false", "2"]
    #expect(ends == [other, ["the disk is full", "true", "1"], other])
  }

  @Test func `a rank that fails in the middle of a pass leaves nobody waiting`() throws {
    let failures = Mutex<[Int: String]>([:])
    #expect(throws: (any Error).self) {
      try InProcessMesh.run(size: 3) { transport in
        let context = try RunContext(
          configuration: TinyRun.configuration(), folder: RunFolder("/nowhere/"),
          transport: transport, reporter: Reporter(), isStopRequested: { false })
        var exchangeCount = 0
        // Rank 1 leaves out the second exchange; the others wait for it there.
        for number in 0..<3 {
          context.exchangeInPass {
            exchangeCount += 1
            if transport.rank == 1 && number == 1 {
              throw JobError(exitCode: .other, "a damaged message")
            }
            _ = try transport.allGather(value: number)
          }
        }
        // The others may hear of it while they still read the first.
        #expect(transport.rank == 1 ? exchangeCount == 2 : 1...2 ~= exchangeCount)
        do { _ = try context.agreeOnStep(losses: [1]) } catch {
          failures.withLock { $0[transport.rank] = "\(error)" }
          throw error
        }
      }
    }
    let told = failures.withLock { $0 }
    #expect(told.count == 3 && told.values.allSatisfy { $0.contains("a damaged message") })
  }

  @Test func `a reading that is not a number stays one, with its bits`() throws {
    let odd = Double(nan: 5, signaling: false)
    for agreement in try agreements(ranks: 2, losses: [odd, 1], readings: ["a": [1, odd]]) {
      #expect(agreement.losses.map(\.bitPattern) == [odd, 1].map(\.bitPattern))
      #expect(agreement.readings["a"]?.map(\.bitPattern) == [1, odd].map(\.bitPattern))
      #expect(agreement.sum(of: "a").isNaN)
    }
  }
}
