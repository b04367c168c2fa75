// Microbatches in flight on one stage. The body of a microbatch pauses where it would wait for the velocity of
// a pass; then another goes on. The order is fixed by the stage and the schedule, never by what has arrived,
// and a message waits only for what comes before it in the orders of all stages:
//
//   one pass      `order`: all forward, then all back; or stages − stage forward, then one back and one
//                 forward in turn
//   several       rounds over a wave of microbatches, each up to its next velocity, until all are through;
//                 the wave is all of them (GPipe), or as many as there are stages (1F1B)

package import Basics

/// How many passes of networks a microbatch makes before its way back.
package enum PassCount: Sendable {
  case one
  case several
}

extension PipelineSchedule {
  /// Microbatches of several passes that are in flight together.
  package func waves(of count: Int, stageCount: Int) -> [Range<Int>] {
    let size = self == .gPipe ? count : stageCount
    return stride(from: 0, to: count, by: max(size, 1)).map { $0..<min($0 + size, count) }
  }

  /// Runs the body of each microbatch of `0..<count`, on threads of which one at a time runs.
  /// - Parameters:
  ///   - adopt: called on a thread that takes over.
  ///   - goOn: has a body run until it pauses or ends; the turns of a stage, in order.
  ///   - body: of a microbatch.
  /// - Precondition: GPipe or 1F1B.
  package func run(
    _ count: Int, _ passes: PassCount, stage: Int, stageCount: Int,
    adopt: @escaping () -> Void = {}, goOn: (_ index: Int, _ body: PausableBody) -> Void,
    _ body: @escaping (_ index: Int) -> Void
  ) {
    require(self == .gPipe || self == .oneForwardOneBackward, "\(self) does not run here")
    let bodies = (0..<count).map { index in PausableBody(adopt: adopt) { body(index) } }
    switch passes {
    case .one:
      for slot in order(stage: stage, stageCount: stageCount, microbatchCount: count) {
        goOn(slot.microbatch, bodies[slot.microbatch])
      }
      require(bodies.allSatisfy(\.isFinished), "a microbatch made more than one pass")
    case .several:
      for wave in waves(of: count, stageCount: stageCount) {
        while wave.contains(where: { !bodies[$0].isFinished }) {
          for index in wave where !bodies[index].isFinished { goOn(index, bodies[index]) }
        }
      }
    }
  }
}
