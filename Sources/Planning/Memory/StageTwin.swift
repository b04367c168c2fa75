// A stage of a pipeline over sizes: the twin of Training's `StagedSequence` and of its microbatches in flight.

import Basics
import MeshLayout

/// How much of a network a pass has in memory.
enum ExtentTwin {
  case whole, part, stage, partOfStage

  var isPart: Bool { self == .part || self == .partOfStage }
  var isOfStage: Bool { self == .stage || self == .partOfStage }
}

/// What a rank runs in a row for a microbatch.
struct StageTurn {
  /// What other stages tell.
  enum Awaited: Equatable {
    /// By the last stage, at the end of a pass.
    case velocity
    /// By this one, likewise.
    case features(stage: Int)
    /// By the first, at the end of a way back.
    case latentGradient
  }

  let microbatch: Int
  /// What it ends with; nil: the microbatch is through, after its way back.
  let awaited: Awaited?
  let operationCount: Double

  var isLast: Bool { awaited == nil }
  /// Whether it comes from the next stage.
  var isWayBack: Bool { isLast || awaited == .latentGradient }
}

/// One stage, and what its microbatches have done in turns.
final class StageTwin {
  let index: Int
  let count: Int
  let schedule: PipelineSchedule
  /// Called where a microbatch waits.
  private var onWait: () -> Void = {}
  private var awaited = StageTurn.Awaited.velocity

  init(index: Int, count: Int, schedule: PipelineSchedule) {
    self.index = index
    self.count = count
    self.schedule = schedule
  }

  var isFirst: Bool { index == 0 }
  var isLast: Bool { index == count - 1 }

  func blocks(of blockCount: Int) -> Range<Int> {
    StageCut(blockCount: blockCount, stageCount: count).blocks(of: index)
  }

  /// Which stage makes features behind so many blocks.
  func featuresSource(behind featureBlockCount: Int, of blockCount: Int) -> Int {
    StageCut(blockCount: blockCount, stageCount: count)
      .stage(ofBlock: max(featureBlockCount - 1, 0))
  }

  /// Other microbatches go on.
  func wait(for awaited: StageTurn.Awaited) {
    self.awaited = awaited
    onWait()
  }

  /// - Returns: the turns, in order.
  func run(
    _ microbatchCount: Int, _ passes: PassCount, _ ledger: PlannedLedger,
    _ body: @escaping (_ microbatch: Int) -> Void
  ) -> [StageTurn] {
    var turns: [StageTurn] = []
    defer { onWait = {} }
    schedule.run(
      microbatchCount, passes, stage: index, stageCount: count,
      goOn: { [self] microbatch, body in
        let before = ledger.work.operationCount
        onWait = { body.pause() }
        ledger.activationStore?.microbatch = microbatch
        body.resume()
        turns.append(
          StageTurn(
            microbatch: microbatch, awaited: body.isFinished ? nil : awaited,
            operationCount: ledger.work.operationCount - before))
      }, body)
    return turns
  }

  /// Operations' time until all stages are through with their turns, where nothing but operations takes time.
  /// - Parameter turns: by stage.
  static func makespan(_ turns: [[StageTurn]]) -> Double {
    struct Place: Hashable {
      let stage, microbatch, pass: Int
    }
    let last = turns.count - 1
    var ends: [Place: Double] = [:]
    var next = turns.map { _ in 0 }
    var times = turns.map { _ in 0.0 }
    var passes = turns.map { _ in [Int: Int]() }
    /// By stage and microbatch, who tells what it waits for.
    var tellers = turns.map { _ in [Int: Int]() }
    var hasMoved = true
    while hasMoved {
      hasMoved = false
      for stage in turns.indices {
        while next[stage] < turns[stage].count {
          let turn = turns[stage][next[stage]]
          let pass = passes[stage][turn.microbatch, default: 0]
          func place(_ stage: Int, _ pass: Int) -> Place {
            Place(stage: stage, microbatch: turn.microbatch, pass: pass)
          }
          // A pass comes from the stage before, a way back from the next one; both follow what was waited for.
          var sources = tellers[stage][turn.microbatch].map { [place($0, pass - 1)] } ?? []
          if turn.isWayBack, stage < last { sources.append(place(stage + 1, pass)) }
          if !turn.isWayBack, stage > 0 { sources.append(place(stage - 1, pass)) }
          let arrivals = sources.compactMap { ends[$0] }
          guard arrivals.count == sources.count else { break }
          times[stage] = max(times[stage], arrivals.max() ?? 0) + turn.operationCount
          ends[place(stage, pass)] = times[stage]
          passes[stage][turn.microbatch] = pass + 1
          tellers[stage][turn.microbatch] = turn.awaited.map { $0.teller(last: last) }
          next[stage] += 1
          hasMoved = true
        }
      }
    }
    require(
      zip(next, turns).allSatisfy { $0 == $1.count }, "stages wait for each other: \(next)")
    return times.max() ?? 0
  }
}

extension StageTurn.Awaited {
  /// The stage that tells it.
  func teller(last: Int) -> Int {
    switch self {
    case .velocity: last
    case .features(let stage): stage
    case .latentGradient: 0
    }
  }
}

// MARK: Passes

extension NetworkTwin {
  /// Elements of the values of a state before a block, as `stateShapes` of the networks' stems.
  private func stateCounts(before block: Int, sampleCount: Int) -> [Int] {
    if case .multimodal = sizes.form {
      let frameCount = sampleCount * sizes.latentFrames
      return [sizes.frameTokenCount, sizes.textTokenCount].map {
        frameCount * (part?.count(of: $0) ?? $0) * width
      } + [sampleCount * width]
    }
    let own = [sizes.videoTokenCount, sizes.textTokenCount].map { part?.count(of: $0) ?? $0 }
    let tokens = block <= sizes.doubleBlockCount ? own : [own.reduce(0, +)]
    return tokens.map { sampleCount * $0 * width } + [sampleCount * width]
  }

  /// What the stage before has handed on. Its gradients go back as soon as they are there.
  /// - Parameter isTracked: whether the latents want a gradient.
  func receive(
    _ tape: TapeTwin, before block: Int, sampleCount: Int, isTracked: Bool = false
  ) -> StateTwin {
    let counts = stateCounts(before: block, sampleCount: sampleCount)
    let wantsGradient = isTrainable || adapter?.isTrainable == true || isTracked
    let values = tape.inputs(
      counts.enumerated().map { index, count in
        // The condition depends on nothing that an adapter changes.
        (tape.result(count), index < counts.count - 1 ? wantsGradient : isTrainable)
      }
    ) { tracked in
      tape.ledger.exchange(
        byteCount: 4 * (tracked.reduce(0, +) + counts.count), messageCount: 1, waitCount: 0)
    }
    tape.ledger.work.waitCount += 1
    return StateTwin(streams: Array(values.dropLast()), condition: values[values.count - 1])
  }

  /// Hands a state on, which is gone then, and waits for what is made of it.
  func handOn(
    _ tape: TapeTwin, _ state: consuming StateTwin, _ stage: StageTwin,
    awaiting awaited: StageTurn.Awaited = .velocity, count resultCount: Int
  ) -> ValueTwin {
    let count = state.values.reduce(0) { $0 + $1.count } + state.values.count
    tape.ledger.exchange(byteCount: 4 * count, messageCount: 1)
    let result = tape.handedOn(state.values, resultCount: resultCount)
    // The gradients of the state come from the next stage.
    if result.isTracked {
      tape.onWayBack { [ledger = tape.ledger] in ledger.work.waitCount += 1 }
    }
    _ = consume state
    stage.wait(for: awaited)
    return result
  }

  /// Tells all other stages a velocity, or features.
  func publish(
    _ result: ValueTwin, _ tape: TapeTwin, _ stage: StageTwin,
    as awaited: StageTurn.Awaited = .velocity
  ) {
    stage.countPublished(result.count, tape.ledger)
    stage.wait(for: awaited)
  }

  /// Latents whose gradient the first stage tells all others.
  func sharingGradient(
    of latents: ValueTwin, _ tape: TapeTwin, _ stage: StageTwin
  ) -> ValueTwin {
    let count = latents.count
    return tape.completingGradient(of: latents) { [unowned tape] found in
      guard stage.isFirst else {
        stage.wait(for: .latentGradient)
        return tape.result(count)
      }
      guard let found else { trap("nothing reached the latents") }
      stage.countPublished(count, tape.ledger)
      stage.wait(for: .latentGradient)
      return found
    }
  }
}

extension StageTwin {
  fileprivate func countPublished(_ elementCount: Int, _ ledger: PlannedLedger) {
    ledger.exchange(
      byteCount: 4 * elementCount * (count - 1), messageCount: count - 1, waitCount: 0)
  }
}
