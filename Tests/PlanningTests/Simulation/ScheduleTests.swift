import MeshLayout
import Testing

@testable import Planning

/// Closed forms of specs of distributed systems, §5, against the simulation by events.
struct ScheduleTests {
  /// Seconds of a teach turn on `p` stages of 2 blocks of a second there and two back.
  private func run(
    _ schedule: PipelineSchedule, p: Int, n: Int, turn: SimulatedTurn = .teach
  ) -> Timeline {
    TurnProgram(
      Example.work(blockCount: 2 * p), Example.layout([.stages: p], schedule: schedule), turn,
      microbatchCount: n
    ).run().timeline
  }

  private let forward = 2.0
  private let both = 6.0
  private static let cases = (1...8).flatMap { p in (1...9).map { (p, $0) } }

  @Test(arguments: cases)
  func `GPipe and 1F1B have a bubble of p minus 1 passes`(p: Int, n: Int) {
    for schedule in [PipelineSchedule.gPipe, .oneForwardOneBackward] {
      let timeline = run(schedule, p: p, n: n)
      let bubble = Double(p - 1) * both
      #expect(timeline.seconds == Double(n) * both + bubble)
      #expect(timeline.stages.allSatisfy { $0.bubble == bubble && $0.exposedCommunication == 0 })
    }
  }

  @Test(arguments: cases)
  func `local blocks wait for the first microbatch only`(p: Int, n: Int) {
    let timeline = run(.localBlocks, p: p, n: n)
    // The last stage waits for the fill alone; one microbatch is held whatever p and n.
    #expect(timeline.seconds == Double(n) * both + Double(p - 1) * forward)
    #expect(timeline.stages[p - 1].bubble == Double(p - 1) * forward)
    let held = PipelineSchedule.localBlocks.heldCount(
      stage: 0, stageCount: p, microbatchCount: n)
    #expect(held == 1)
  }

  @Test(arguments: cases)
  func `a frozen role has a fill of p minus 1 forward passes`(p: Int, n: Int) {
    let turn = SimulatedTurn(
      name: "frozen", passes: [SimulatedPass(.base, .silent)], trainedPass: nil)
    let seconds = run(.gPipe, p: p, n: n, turn: turn).seconds
    #expect(seconds == Double(n) * forward + Double(p - 1) * forward)
  }

  @Test(arguments: [1, 2, 3, 4], [1, 2, 4])
  func `interleaved chunks divide the bubble`(p: Int, v: Int) {
    for n in [p, 2 * p, 4 * p] {
      let timeline = TurnProgram(
        Example.work(blockCount: p * v), Example.layout([.stages: p], schedule: .interleaved(v)),
        .teach, microbatchCount: n
      ).run().timeline
      let stage = Double(3 * v)
      #expect(timeline.seconds == Double(n) * stage + Double(p - 1) * stage / Double(v), "\(n)")
    }
  }

  @Test(arguments: cases)
  func `GPipe holds all microbatches, 1F1B as many as stages`(p: Int, n: Int) {
    func held(_ schedule: PipelineSchedule) -> Int {
      schedule.heldCount(stage: 0, stageCount: p, microbatchCount: n)
    }
    #expect(held(.gPipe) == n)
    #expect(held(.oneForwardOneBackward) == min(n, p))
  }

  @Test func `every order runs each half of each microbatch once, forward first`() {
    for schedule in [PipelineSchedule.gPipe, .oneForwardOneBackward, .localBlocks, .interleaved(2)]
    {
      for p in [1, 2, 4] {
        for n in [p, 2 * p] {
          for stage in 0..<p {
            let order = schedule.order(stage: stage, stageCount: p, microbatchCount: n)
            #expect(order.count == 2 * n * schedule.chunkCount)
            for (index, slot) in order.enumerated() {
              #expect(order.firstIndex(of: slot) == index)
              guard !slot.isForward else { continue }
              let there = PipelineSchedule.Slot(
                isForward: true, microbatch: slot.microbatch, chunk: slot.chunk)
              #expect(order[..<index].contains(there))
            }
          }
        }
      }
    }
  }

  @Test func `on paper a generator turn in a pipeline runs its sample silently first`() {
    let turns = SimulatedTurn.distill(Example.sizes { $0.simulatesRollout = false })
    let generator = turns[0].turn
    #expect(generator.passes.count == 4 && generator.withSilentSample.passes.count == 5)
    let (n, p) = (4, 2)
    let seconds = run(.interleaved(1), p: p, n: n, turn: generator).seconds
    // 5 forward passes and a way back of twice as much.
    #expect(seconds >= Double(n) * (5 * forward + 4))
    #expect(seconds <= Double(n + 2 * p) * (5 * forward + 4))
  }

  @Test(arguments: [PipelineSchedule.gPipe, .oneForwardOneBackward])
  func `passes in a row take what the plan's stages take for them`(_ schedule: PipelineSchedule) {
    let sizes = Example.sizes { $0.simulatesRollout = false }
    let generator = SimulatedTurn.distill(sizes)[0].turn
    for turn in [generator, .training(sizes), .samples(sizes), .scores(sizes)] {
      let back = turn.trained == nil ? 0 : 2 * forward
      for p in 2...4 {
        for n in 1...6 {
          let twins = (0..<p).map { index in
            let ledger = PlannedLedger()
            let stage = StageTwin(index: index, count: p, schedule: schedule)
            return stage.run(n, .several, ledger) { _ in
              for _ in turn.passes {
                ledger.work.operationCount += forward
                stage.wait(for: .velocity)
              }
              ledger.work.operationCount += back
            }
          }
          let seconds = run(schedule, p: p, n: n, turn: turn).seconds
          #expect(seconds == StageTwin.makespan(twins), "\(turn.name), \(p) stages, \(n)")
        }
      }
    }
  }

  @Test func `a task waits for what comes from outside`() {
    var simulation = EventSimulation(stageCount: 1)
    simulation.add(.compute, stage: 0, seconds: 3, after: [], release: 2)
    simulation.add(.compute, stage: 0, seconds: 1, after: [], release: 4)
    let timeline = simulation.run()
    #expect(timeline.starts == [2, 5] && timeline.seconds == 6)
    #expect(timeline.stages[0] == StageTimes(compute: 4, bubble: 2))
  }

  @Test func `tasks wait for their lane and for what they name`() {
    var simulation = EventSimulation(stageCount: 2)
    let first = simulation.add(.compute, stage: 0, seconds: 3, after: [])
    let sent = simulation.add(.communication, stage: 0, seconds: 2, after: [first])
    simulation.add(.compute, stage: 0, seconds: 1, after: [])
    let far = simulation.add(.compute, stage: 1, seconds: 4, after: [sent])
    let timeline = simulation.run()
    #expect(timeline.starts == [0, 3, 3, 5])
    #expect(timeline.seconds == 9 && timeline.starts[far] == 5)
    #expect(
      timeline.stages[0]
        == StageTimes(compute: 4, exposedCommunication: 1, bubble: 4, communication: 2))
    #expect(timeline.stages[1] == StageTimes(compute: 4, bubble: 5))
    #expect(timeline.ends == [3, 5, 4, 9])
  }
}
