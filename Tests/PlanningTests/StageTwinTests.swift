import Basics
import Testing

@testable import Planning

/// The turns of stages whose passes take `forward`, and the way back `backward`.
private func turns(
  _ schedule: PipelineSchedule, stages: Int, microbatches: Int, passes: Int,
  forward: Double = 1, backward: Double = 2
) -> [[StageTurn]] {
  (0..<stages).map { index in
    let ledger = PlannedLedger()
    let stage = StageTwin(index: index, count: stages, schedule: schedule)
    return stage.run(microbatches, passes == 1 ? .one : .several, ledger) { _ in
      for _ in 0..<passes {
        ledger.work.operationCount += forward
        stage.wait(for: .velocity)
      }
      ledger.work.operationCount += backward
    }
  }
}

struct StageTwinTests {
  @Test(arguments: [PipelineSchedule.gPipe, .oneForwardOneBackward])
  func `the bubble of one pass is (p − 1) (T_F + T_B)`(_ schedule: PipelineSchedule) {
    for stages in 1...5 {
      for microbatches in 1...7 {
        let ran = turns(schedule, stages: stages, microbatches: microbatches, passes: 1)
        let name = "\(schedule), \(stages) stages, \(microbatches) microbatches"
        #expect(StageTwin.makespan(ran) == Double(microbatches + stages - 1) * 3, "\(name)")
        for (stage, turns) in ran.enumerated() {
          #expect(turns.count == 2 * microbatches, "\(name)")
          let order = schedule.order(
            stage: stage, stageCount: stages, microbatchCount: microbatches)
          #expect(turns.map(\.microbatch) == order.map(\.microbatch), "\(name)")
          #expect(turns.map(\.isLast) == order.map { !$0.isForward }, "\(name)")
        }
      }
    }
  }

  @Test func `passes in a row wait for each other only where microbatches are too few`() {
    for stages in 2...4 {
      for passes in 2...4 {
        // As many microbatches as stages, or more, keep all stages busy between the first and the last.
        for microbatches in stages...stages + 2 {
          let ran = turns(.gPipe, stages: stages, microbatches: microbatches, passes: passes)
          let busy = Double(microbatches * (passes + 2))
          #expect(
            StageTwin.makespan(ran) == busy + Double(stages - 1) * 3,
            "\(stages) stages, \(microbatches) microbatches of \(passes) passes")
        }
        // One alone is in one stage at a time.
        let alone = turns(
          .oneForwardOneBackward, stages: stages, microbatches: 1, passes: passes)
        #expect(StageTwin.makespan(alone) == Double(stages * (passes + 2)))
      }
    }
  }

  @Test func `waves of 1F1B have as many microbatches as there are stages`() {
    for stages in 1...4 {
      for microbatches in 1...9 {
        let ran = turns(
          .oneForwardOneBackward, stages: stages, microbatches: microbatches, passes: 3)
        for turns in ran {
          var begun: Set<Int> = []
          var most = 0
          for turn in turns {
            begun.insert(turn.microbatch)
            most = max(most, begun.count)
            if turn.isLast { begun.remove(turn.microbatch) }
          }
          #expect(most == min(stages, microbatches))
          #expect(begun.isEmpty)
        }
      }
    }
  }
  /// A pass, features that the middle stage makes, their way back to the latents, and the way back of the pass.
  @Test func `features and the gradient at latents come from the stages that make them`() {
    let durations: [[Double]] = [[1, 2, 4, 1], [1, 3, 5, 1], [1, 0, 0, 1]]
    func turns(_ microbatches: Int) -> [[StageTurn]] {
      durations.enumerated().map { index, durations in
        let ledger = PlannedLedger()
        let stage = StageTwin(index: index, count: 3, schedule: .gPipe)
        return stage.run(microbatches, .several, ledger) { _ in
          let awaited: [StageTurn.Awaited] = [.velocity, .features(stage: 1), .latentGradient]
          for (duration, awaited) in zip(durations, awaited) {
            ledger.work.operationCount += duration
            stage.wait(for: awaited)
          }
          ledger.work.operationCount += durations[3]
        }
      }
    }
    // 3 forward, 2 + 3 for the features, 5 + 4 back to the latents, 3 back.
    #expect(StageTwin.makespan(turns(1)) == 3 + 5 + 9 + 3)
    // Of six in flight the middle stage begins the features at 8 and goes on with them and their way back without a
    // gap; then the first has a way to latents left, and six ways back.
    #expect(StageTwin.makespan(turns(6)) == 8 + 6 * (3 + 5) + 4 + 6)
  }
}
