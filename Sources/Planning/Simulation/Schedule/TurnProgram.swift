// One turn of a step as tasks on the lanes of its stages.
//
// All ranks of a stage do the same at the same time, so one of them stands for all; stages differ. A stage runs
// its slots in program order, which is the worker's (`PipelineSchedule+Bodies`): one pass a microbatch by
// `PipelineSchedule.order`, several in rounds over waves. Without overlap a slot is one task of computing and one
// of the link after it; with overlap, at ZeRO stages 2 and 3, each block has its own tasks:
//   gather of block i + 1 | compute i, exchange i | sum of the gradients of i, for which only the update waits
// The first block of a slot is gathered when it is entered, unless it is in memory still, as the last one of the slot
// before is, with overlap the last two; what lies outside of blocks once in a turn, and never where it does not change.

import Basics
import MeshLayout

package struct TurnProgram {
  let costs: LayoutCosts
  let turn: SimulatedTurn
  let microbatchCount: Int
  /// When the ways back of microbatches may begin, as far as others decide; nil: nobody does.
  var releases: [Double]?

  private var layout: SimulatedLayout { costs.layout }
  private var stageCount: Int { layout.stageCount }
  private var chunkCount: Int { stageCount == 1 ? 1 : layout.schedule.chunkCount }
  private var virtualCount: Int { stageCount * chunkCount }

  /// - Parameter microbatchCount: of the busiest data-parallel rank.
  package init(
    _ work: SimulatedWork, _ layout: SimulatedLayout, _ turn: SimulatedTurn, microbatchCount: Int,
    releases: [Double]? = nil
  ) {
    costs = LayoutCosts(work, layout)
    self.turn =
      layout.stageCount > 1 && !layout.schedule.runsWaves ? turn.withSilentSample : turn
    self.microbatchCount = microbatchCount
    self.releases = releases
    require(
      work.model.blocks.count >= layout.stageCount * layout.schedule.chunkCount,
      "\(work.model.blocks.count) blocks over \(layout.stageCount) stages")
  }

  /// One way of one pass through one chunk for one microbatch.
  private struct Slot {
    let pass: Int
    let isForward: Bool
    let microbatch: Int
    let virtualStage: Int
  }

  private func blocks(_ virtualStage: Int) -> Range<Int> {
    evenRange(of: costs.work.model.blocks.count, part: virtualStage, partCount: virtualCount)
  }

  /// Units of a virtual stage; the ends run with the first.
  private func units(_ virtualStage: Int) -> [SimulatedUnit] {
    let model = costs.work.model
    return (virtualStage == 0 ? [model.ends] : []) + model.blocks[blocks(virtualStage)]
  }

  // MARK: Program order

  private func slots(stage: Int) -> [Slot] {
    func slot(_ pass: Int, _ slot: PipelineSchedule.Slot) -> Slot {
      Slot(
        pass: pass, isForward: slot.isForward, microbatch: slot.microbatch,
        virtualStage: slot.chunk * stageCount + stage)
    }
    let schedule = layout.schedule
    let trained = turn.trainedPass.map { [$0] } ?? []
    func wave(_ microbatches: some Collection<Int>) -> [Slot] {
      turn.passes.indices.flatMap { pass in
        microbatches.map { slot(pass, .init(isForward: true, microbatch: $0)) }
      }
        + trained.flatMap { pass in
          microbatches.map { slot(pass, .init(isForward: false, microbatch: $0)) }
        }
    }
    if stageCount == 1 { return (0..<microbatchCount).flatMap { wave(CollectionOfOne($0)) } }
    if schedule.runsWaves && turn.passCount == .several {
      return schedule.waves(of: microbatchCount, stageCount: stageCount).flatMap { wave($0) }
    }
    let forward = schedule.forwardOrder(
      stageCount: stageCount, microbatchCount: microbatchCount)
    let order = schedule.order(
      stage: stage, stageCount: stageCount, microbatchCount: microbatchCount)
    return turn.passes.indices.filter { $0 != turn.trainedPass }
      .flatMap { pass in forward.map { slot(pass, $0) } }
      + trained.flatMap { pass in order.map { slot(pass, $0) } }
  }

  // MARK: Tasks

  /// Bytes that a rank of a stage sends.
  package struct Sent: Codable, Equatable, Sendable {
    /// Inside blocks: tokens against heads, tensor parallel.
    package var activations = 0.0
    /// Parameters and gradients.
    package var updates = 0.0
    /// Hidden states, and velocities, between stages.
    package var stages = 0.0

    package var total: Double { activations + updates + stages }
  }

  package struct Run {
    package let timeline: Timeline
    /// By stage.
    package let sent: [Sent]
    /// By microbatch, when all passes have told their results.
    package let passEnds: [Double]
  }

  /// Simulates the turn.
  package func run() -> Run {
    var builder = Builder(self)
    builder.addPasses()
    if turn.trainedPass != nil {
      for stage in 0..<stageCount { builder.addUpdate(stage) }
    }
    let timeline = builder.simulation.run()
    return Run(
      timeline: timeline, sent: builder.sent,
      passEnds: builder.lastArrivals.map { tasks in tasks.map { timeline.ends[$0] }.max() ?? 0 })
  }

  /// What a stage has in memory of a network whose parameters come and go.
  private struct Present {
    var hasEnds = false
    /// The last ones that were entered.
    var blocks: [Int] = []
  }

  /// What the turn before has left. W changes where it is taught only, the generator in its own turns; the first turn behind
  /// such a one loads what lies outside of blocks.
  private func presentAtStart(stage: Int) -> [Present] {
    let blocks = blocks(stage)
    let last = Array(blocks.suffix(keptBlockCount))
    let first = Array(blocks.prefix(keptBlockCount))
    let keepsBase = turn.trained.map { $0.network == .generator || $0.kind != .trained } ?? true
    return [
      Present(hasEnds: keepsBase, blocks: keepsBase ? turn.followsWayBack ? first : last : []),
      Present(blocks: turn.endsLoadCount == 0 ? last : []),
    ]
  }

  /// Blocks that stay in memory when a slot ends.
  private var keptBlockCount: Int { layout.overlaps ? 2 : 1 }

  /// Puts tasks on lanes, stage by stage as far as what they wait for is there.
  private struct Builder {
    typealias Task = EventSimulation.Task

    let program: TurnProgram
    var simulation: EventSimulation
    var sent: [Sent]
    private let slots: [[Slot]]
    /// Units with their costs there and back, by pass and virtual stage.
    private let forward: [[[UnitCosts]]]
    private let backward: [[UnitCosts]]
    /// Ends of slots as the next stage sees them.
    private var arrivals: [Task?]
    private var ends: [Task?]
    private var gathers: [Task?]
    private var reductions: [[Task]]
    /// By stage: of W, then of the generator.
    private var present: [[Present]]

    init(_ program: TurnProgram) {
      self.program = program
      let stageCount = program.stageCount
      simulation = EventSimulation(stageCount: stageCount)
      sent = Array(repeating: Sent(), count: stageCount)
      slots = (0..<stageCount).map(program.slots(stage:))
      let units = (0..<program.virtualCount).map(program.units)
      let turn = program.turn
      let costs = program.costs
      forward = turn.passes.map { pass in
        Self.mapped(units) { costs.forward(pass, $0) }
      }
      backward =
        turn.trained.map { trained in
          Self.mapped(units) { costs.backward(trained, $0) }.map { $0.reversed() }
        } ?? []
      arrivals = Array(
        repeating: nil,
        count: 2 * program.virtualCount * turn.passes.count * program.microbatchCount)
      ends = Array(repeating: nil, count: stageCount)
      gathers = ends
      reductions = Array(repeating: [], count: stageCount)
      present = (0..<stageCount).map(program.presentAtStart(stage:))
    }

    /// Costs of all units; equal neighbors are worked out once.
    private static func mapped(
      _ units: [[SimulatedUnit]], _ costs: (SimulatedUnit) -> UnitCosts
    ) -> [[UnitCosts]] {
      var known: (unit: SimulatedUnit, costs: UnitCosts)?
      return units.map { units in
        units.map { unit in
          if let known, known.unit == unit { return known.costs }
          let costs = costs(unit)
          known = (unit, costs)
          return costs
        }
      }
    }

    private func name(_ slot: Slot) -> Int {
      let way = 2 * (slot.virtualStage * program.turn.passes.count + slot.pass)
      return (way + (slot.isForward ? 0 : 1)) * program.microbatchCount + slot.microbatch
    }

    /// By microbatch, where results of passes are told.
    var lastArrivals: [[Task]] {
      (0..<program.microbatchCount).map { microbatch in
        program.turn.passes.indices.compactMap {
          arrivals[
            name(
              Slot(
                pass: $0, isForward: true, microbatch: microbatch,
                virtualStage: program.virtualCount - 1))]
        }
      }
    }

    /// Costs of the units of a slot, without gathers of what is in memory.
    private mutating func unitCosts(_ slot: Slot, _ stage: Int) -> [UnitCosts] {
      var units =
        slot.isForward ? forward[slot.pass][slot.virtualStage] : backward[slot.virtualStage]
      guard program.layout.zeroStage == .parameters else { return units }
      let network = program.turn.passes[slot.pass].network == .base ? 0 : 1
      let blocks = program.blocks(slot.virtualStage)
      if slot.virtualStage == 0 {
        let place = slot.isForward ? 0 : units.count - 1
        let count = present[stage][network].hasEnds ? 0 : program.turn.endsLoadCount
        units[place].scaleGather(by: count)
        present[stage][network].hasEnds = true
      }
      let order = slot.isForward ? Array(blocks) : blocks.reversed()
      let firstPlace = slot.isForward && slot.virtualStage == 0 ? 1 : 0
      for (place, block) in order.enumerated() {
        // The next one is loaded as soon as one is entered, others go.
        guard present[stage][network].blocks.contains(block) else { break }
        units[firstPlace + place].scaleGather(by: 0)
      }
      present[stage][network].blocks = order.suffix(program.keptBlockCount)
      return units
    }

    /// What a slot waits for besides its own stage; nil while some of it is not there yet.
    private func dependencies(_ slot: Slot) -> [Task]? {
      let last = program.virtualCount - 1
      let pass = program.turn.passes[slot.pass]
      var wanted: [Slot] = []
      func want(_ pass: Int, isForward: Bool, virtualStage: Int) {
        wanted.append(
          Slot(
            pass: pass, isForward: isForward, microbatch: slot.microbatch,
            virtualStage: virtualStage))
      }
      if slot.isForward {
        if slot.virtualStage > 0 {
          want(slot.pass, isForward: true, virtualStage: slot.virtualStage - 1)
        } else if program.layout.schedule.runsWaves && program.stageCount > 1 {
          // The body of a microbatch waits for every velocity, that of the first one of a wave for all before it to end.
          if slot.pass > 0 {
            want(slot.pass - 1, isForward: true, virtualStage: last)
          } else if program.turn.trainedPass == nil && slot.microbatch > 0 && isFirstOfWave(slot) {
            wanted.append(
              Slot(
                pass: program.turn.passes.count - 1, isForward: true,
                microbatch: slot.microbatch - 1, virtualStage: last))
          }
        } else if let input = pass.input {
          want(input, isForward: true, virtualStage: last)
        }
      } else if program.layout.schedule != .localBlocks || program.stageCount == 1 {
        if slot.virtualStage < last {
          want(slot.pass, isForward: false, virtualStage: slot.virtualStage + 1)
        } else {
          for seed in pass.seeds { want(seed, isForward: true, virtualStage: last) }
        }
      }
      var tasks: [Task] = []
      for slot in wanted {
        guard let task = arrivals[name(slot)] else { return nil }
        tasks.append(task)
      }
      return tasks
    }

    private func isFirstOfWave(_ slot: Slot) -> Bool {
      program.layout.schedule.waves(
        of: program.microbatchCount, stageCount: program.stageCount
      ).contains { $0.lowerBound == slot.microbatch }
    }

    mutating func addPasses() {
      var next = Array(repeating: 0, count: program.stageCount)
      var left = slots.reduce(0) { $0 + $1.count }
      while left > 0 {
        let before = left
        for stage in slots.indices {
          while next[stage] < slots[stage].count,
            let earlier = dependencies(slots[stage][next[stage]])
          {
            add(slots[stage][next[stage]], stage, after: earlier)
            next[stage] += 1
            left -= 1
          }
        }
        require(left < before, "\(left) slots wait for each other")
      }
    }

    private mutating func add(_ slot: Slot, _ stage: Int, after earlier: [Task]) {
      let units = unitCosts(slot, stage)
      let release =
        slot.isForward || slot.virtualStage < program.virtualCount - 1
        ? 0 : program.releases?[slot.microbatch] ?? 0
      if program.layout.overlaps && program.layout.zeroStage != .optimizer {
        let endsFirst = slot.isForward && slot.virtualStage == 0
        for (place, unit) in units.enumerated() {
          let isAhead = place + 1 < units.count && !(place == 0 && endsFirst)
          addUnit(
            unit, isAhead ? units[place + 1] : nil, slot, stage,
            after: place == 0 ? earlier : [], release: place == 0 ? release : 0)
        }
      } else {
        addWhole(
          units.reduce(UnitCosts(), +), slot, stage, after: earlier, release: release)
      }
      deliver(slot, stage)
    }

    /// A slot without overlap: one task of either lane.
    private mutating func addWhole(
      _ costs: UnitCosts, _ slot: Slot, _ stage: Int, after earlier: [Task], release: Double
    ) {
      compute(costs.computeSeconds, stage, after: earlier, release: release)
      let isReduced = !slot.isForward && program.layout.sumsBlocks
      count(costs, stage, isReduced: isReduced)
      wait(
        costs.exchangeSeconds + costs.gatherSeconds + (isReduced ? costs.reduceSeconds : 0),
        stage)
    }

    /// A unit with overlap: the next one's parameters come while it runs.
    private mutating func addUnit(
      _ costs: UnitCosts, _ next: UnitCosts?, _ slot: Slot, _ stage: Int, after earlier: [Task],
      release: Double
    ) {
      if gathers[stage] == nil { gather(costs, stage, after: ends[stage]) }
      let own = gathers[stage]
      gathers[stage] = nil
      if let next { gather(next, stage, after: ends[stage]) }
      compute(
        costs.computeSeconds, stage, after: earlier + (own.map { [$0] } ?? []), release: release)
      count(costs, stage, isReduced: !slot.isForward)
      if !slot.isForward && costs.reduceSeconds > 0, let end = ends[stage] {
        reductions[stage].append(
          simulation.add(
            .communication, stage: stage, seconds: costs.reduceSeconds, after: [end]))
      }
      wait(costs.exchangeSeconds, stage)
    }

    private mutating func gather(_ costs: UnitCosts, _ stage: Int, after end: Task?) {
      guard costs.gatherSeconds > 0 else { return }
      gathers[stage] = simulation.add(
        .communication, stage: stage, seconds: costs.gatherSeconds,
        after: end.map { [$0] } ?? [])
    }

    private mutating func compute(
      _ seconds: Double, _ stage: Int, after earlier: [Task], release: Double = 0
    ) {
      ends[stage] = simulation.add(
        .compute, stage: stage, seconds: seconds,
        after: earlier + (ends[stage].map { [$0] } ?? []), release: release)
    }

    /// Work of the link that the stage's next task waits for.
    private mutating func wait(_ seconds: Double, _ stage: Int) {
      guard seconds > 0 else { return }
      ends[stage] = simulation.add(
        .communication, stage: stage, seconds: seconds, after: ends[stage].map { [$0] } ?? [])
    }

    private mutating func count(_ costs: UnitCosts, _ stage: Int, isReduced: Bool) {
      sent[stage].activations += costs.exchangeBytes
      sent[stage].updates += costs.gatherBytes + (isReduced ? costs.reduceBytes : 0)
    }

    /// Sends the result on and notes when it is there.
    private mutating func deliver(_ slot: Slot, _ stage: Int) {
      guard let end = ends[stage] else { return }
      arrivals[name(slot)] = end
      guard program.stageCount > 1 else { return }
      let message = message(slot, stage)
      guard let message else { return }
      sent[stage].stages += message.bytes
      arrivals[name(slot)] = simulation.add(
        .communication, stage: stage, seconds: message.seconds, after: [end])
    }

    private func message(_ slot: Slot, _ stage: Int) -> LayoutCosts.Message? {
      let (costs, pass) = (program.costs, program.turn.passes[slot.pass])
      let isLocal = program.layout.schedule == .localBlocks
      let count = slot.isForward ? pass.repeatCount : 1
      var message: LayoutCosts.Message
      switch (slot.isForward, slot.virtualStage) {
      case (true, program.virtualCount - 1):
        // Of a local block the result alone is wanted, where something starts from it.
        if isLocal, !program.turn.passes.contains(where: { $0.input == slot.pass }) { return nil }
        message = costs.velocity(from: stage)
      case (true, _):
        message = costs.message(
          from: stage, to: (slot.virtualStage + 1) % program.stageCount,
          beforeBlock: program.blocks(slot.virtualStage).upperBound, hasCondition: true)
      case (false, 0): return nil
      case (false, _):
        if isLocal { return nil }
        message = costs.message(
          from: stage, to: (slot.virtualStage - 1) % program.stageCount,
          beforeBlock: program.blocks(slot.virtualStage).lowerBound,
          hasCondition: pass.kind == .trained)
      }
      message.seconds *= count
      message.bytes *= count
      return message
    }

    /// Sums what was not summed yet, runs the optimizer, gathers what it changed.
    mutating func addUpdate(_ stage: Int) {
      guard let trained = program.turn.trained else { return }
      let count = (0..<program.chunkCount).flatMap {
        program.units($0 * program.stageCount + stage)
      }.reduce(0) { $0 + program.costs.trainedCount(trained, $1) }
      let update = program.costs.update(count: count, hasAverage: program.turn.hasAverage)
      sent[stage].updates += update.reduceBytes + update.gatherBytes
      wait(update.reduceSeconds, stage)
      compute(update.optimizerSeconds, stage, after: reductions[stage])
      wait(update.gatherSeconds, stage)
    }
  }
}

extension PipelineSchedule {
  /// Whether microbatches of several passes are in flight in waves, as the worker runs them.
  var runsWaves: Bool { self == .gPipe || self == .oneForwardOneBackward }
}
