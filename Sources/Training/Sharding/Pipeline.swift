// Keeps the microbatches of a turn in flight on this rank's stage, in the order of its schedule.

import Basics
package import Planning

package final class Pipeline {
  private let stage: StagedSequence<Float>
  private let schedule: PipelineSchedule
  /// Called on a thread that takes over the rank.
  private let adopt: () -> Void
  /// Called before a microbatch goes on.
  var onTurn: (_ microbatch: Int) -> Void = { _ in }

  /// - Parameters:
  ///   - schedule: GPipe or 1F1B.
  ///   - adopt: has the calling thread take over the endpoints of the rank.
  package init(
    _ stage: StagedSequence<Float>, schedule: PipelineSchedule, adopt: @escaping () -> Void
  ) {
    self.stage = stage
    self.schedule = schedule
    self.adopt = adopt
  }

  /// Where a pass would end that others in flight make.
  package func skipPass() { stage.onWait() }

  /// Those that are in flight with a microbatch of several passes, of `0..<count`.
  package func companions(of index: Int, count: Int) -> Range<Int> {
    let waves = schedule.waves(of: count, stageCount: stage.stageCount)
    guard let wave = waves.first(where: { $0.contains(index) }) else {
      trap("microbatch \(index) of \(count)")
    }
    return wave
  }

  /// Runs the body of each microbatch of `0..<count`; one at a time runs.
  /// - Collective: over the stages, which run the same passes.
  package func run(count: Int, _ passes: PassCount, _ body: @escaping (_ index: Int) -> Void) {
    defer { stage.onWait = {} }
    schedule.run(
      count, passes, stage: stage.stageIndex, stageCount: stage.stageCount, adopt: adopt,
      goOn: { [stage, onTurn] microbatch, body in
        stage.onWait = { body.pause() }
        onTurn(microbatch)
        body.resume()
      }, body)
  }
}

extension RunConfiguration.PipelineOrder {
  package var planned: PipelineSchedule {
    switch self {
    case .oneForwardOneBackward: .oneForwardOneBackward
    case .gPipe: .gPipe
    }
  }
}
