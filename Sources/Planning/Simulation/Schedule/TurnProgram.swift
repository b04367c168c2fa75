// One turn of a step as tasks on the lanes of its stages.
//
// All ranks of a stage do the same at the same time, so one of them stands for all; stages differ. A stage runs
// its slots in program order (`PipelineSchedule`); without overlap a slot is one task of computing and one
// of the link after it; with overlap each block has its own tasks:
//   gather of block i + 1 | compute i, exchange i | sum of the gradients of i, for which only the update waits
// Gathers run one block ahead, across slots too.

import Basics
import MeshLayout

package struct TurnProgram {
  let costs: LayoutCosts
  let turn: SimulatedTurn
  let microbatchCount: Int

  private var layout: SimulatedLayout { costs.layout }
  private var stageCount: Int { layout.stageCount }
  private var chunkCount: Int { stageCount == 1 ? 1 : layout.schedule.chunkCount }
  private var virtualCount: Int { stageCount * chunkCount }

  /// - Parameter microbatchCount: of the busiest data-parallel rank.
  package init(
    _ work: SimulatedWork, _ layout: SimulatedLayout, _ turn: SimulatedTurn, microbatchCount: Int
  ) {
    costs = LayoutCosts(work, layout)
    self.turn =
      layout.stageCount > 1 && layout.schedule != .gPipe ? turn.withSilentSample : turn
    self.microbatchCount = microbatchCount
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

  /// Units of a virtual stage; the ends run with the first.
  private func units(_ virtualStage: Int) -> [SimulatedUnit] {
    let model = costs.work.model
    let range = evenRange(
      of: model.blocks.count, part: virtualStage, partCount: virtualCount)
    return (virtualStage == 0 ? [model.ends] : []) + model.blocks[range]
  }

  // MARK: Program order

  private func slots(stage: Int) -> [Slot] {
    func slot(_ pass: Int, _ slot: PipelineSchedule.Slot) -> Slot {
      Slot(
        pass: pass, isForward: slot.isForward, microbatch: slot.microbatch,
        virtualStage: slot.chunk * stageCount + stage)
    }
    let passes = turn.passes.indices
    if stageCount == 1 {
      return (0..<microbatchCount).flatMap { microbatch in
        passes.map { slot($0, .init(isForward: true, microbatch: microbatch)) }
          + [slot(turn.trainedPass, .init(isForward: false, microbatch: microbatch))]
      }
    }
    let schedule = layout.schedule
    let forward = schedule.forwardOrder(
      stageCount: stageCount, microbatchCount: microbatchCount)
    let trained = schedule.order(
      stage: stage, stageCount: stageCount, microbatchCount: microbatchCount)
    guard schedule == .gPipe else {
      return passes.filter { $0 != turn.trainedPass }
        .flatMap { pass in forward.map { slot(pass, $0) } }
        + trained.map { slot(turn.trainedPass, $0) }
    }
    return passes.flatMap { pass in forward.map { slot(pass, $0) } }
      + trained.filter { !$0.isForward }.map { slot(turn.trainedPass, $0) }
  }

  // MARK: Tasks

  /// Bytes that a rank of a stage sends.
  package struct Sent: Codable, Equatable, Sendable {
    /// Inside blocks: tokens against heads, tensor parallel.
    package var activations = 0.0
    /// Parameters and gradients.
    package var updates = 0.0
    /// Hidden states and latents between stages.
    package var stages = 0.0

    package var total: Double { activations + updates + stages }
  }

  package struct Run {
    package let timeline: Timeline
    /// By stage.
    package let sent: [Sent]
  }

  /// Simulates the turn.
  package func run() -> Run {
    var builder = Builder(self)
    builder.addPasses()
    for stage in 0..<stageCount { builder.addUpdate(stage) }
    return Run(timeline: builder.simulation.run(), sent: builder.sent)
  }

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
      let trained = turn.passes[turn.trainedPass]
      backward = Self.mapped(units) { costs.backward(trained, $0) }.map { $0.reversed() }
      arrivals = Array(
        repeating: nil,
        count: 2 * program.virtualCount * turn.passes.count * program.microbatchCount)
      ends = Array(repeating: nil, count: stageCount)
      gathers = ends
      reductions = Array(repeating: [], count: stageCount)
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

    private func unitCosts(_ slot: Slot) -> [UnitCosts] {
      slot.isForward ? forward[slot.pass][slot.virtualStage] : backward[slot.virtualStage]
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

    mutating func addPasses() {
      var next = Array(repeating: 0, count: program.stageCount)
      var left = slots.reduce(0) { $0 + $1.count }
      while left > 0 {
        let before = left
        for stage in slots.indices {
          while next[stage] < slots[stage].count,
            let earlier = dependencies(slots[stage][next[stage]])
          {
            add(slots[stage], next[stage], stage, after: earlier)
            next[stage] += 1
            left -= 1
          }
        }
        require(left < before, "\(left) slots wait for each other")
      }
    }

    private mutating func add(
      _ program: [Slot], _ index: Int, _ stage: Int, after earlier: [Task]
    ) {
      let slot = program[index]
      let units = unitCosts(slot)
      if self.program.layout.overlaps {
        let following = index + 1 < program.count ? unitCosts(program[index + 1]).first : nil
        for (place, unit) in units.enumerated() {
          let next = place + 1 < units.count ? units[place + 1] : following
          addUnit(unit, next, slot, stage, after: place == 0 ? earlier : [])
        }
      } else {
        addWhole(units.reduce(UnitCosts(), +), slot, stage, after: earlier)
      }
      deliver(slot, stage)
    }

    /// A slot without overlap: one task of either lane.
    private mutating func addWhole(
      _ costs: UnitCosts, _ slot: Slot, _ stage: Int, after earlier: [Task]
    ) {
      compute(costs.computeSeconds, stage, after: earlier)
      let isReduced = !slot.isForward && program.layout.zeroStage >= 2
      count(costs, stage, isReduced: isReduced)
      wait(
        costs.exchangeSeconds + costs.gatherSeconds + (isReduced ? costs.reduceSeconds : 0),
        stage)
    }

    /// A unit with overlap: the next one's parameters come while it runs.
    private mutating func addUnit(
      _ costs: UnitCosts, _ next: UnitCosts?, _ slot: Slot, _ stage: Int, after earlier: [Task]
    ) {
      if gathers[stage] == nil { gather(costs, stage, after: ends[stage]) }
      let own = gathers[stage]
      gathers[stage] = nil
      if let next { gather(next, stage, after: ends[stage]) }
      compute(costs.computeSeconds, stage, after: earlier + (own.map { [$0] } ?? []))
      let isReduced = !slot.isForward && program.isReduced(slot.microbatch)
      count(costs, stage, isReduced: isReduced)
      if isReduced && costs.reduceSeconds > 0, let end = ends[stage] {
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

    private mutating func compute(_ seconds: Double, _ stage: Int, after earlier: [Task]) {
      ends[stage] = simulation.add(
        .compute, stage: stage, seconds: seconds,
        after: earlier + (ends[stage].map { [$0] } ?? []))
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
      let last = program.virtualCount - 1
      let isLocal = program.layout.schedule == .localBlocks
      let message: (seconds: Double, bytes: Double)
      switch (slot.isForward, slot.virtualStage) {
      case (true, last):
        let isInput = program.turn.passes.contains { $0.input == slot.pass }
        guard stage != 0 && isInput else { return }
        message = program.costs.latents(from: stage)
      case (true, _):
        message = program.costs.message(
          from: stage, to: (slot.virtualStage + 1) % program.stageCount)
      case (false, 0): return
      case (false, _):
        if isLocal { return }
        message = program.costs.message(
          from: stage, to: (slot.virtualStage - 1) % program.stageCount)
      }
      sent[stage].stages += message.bytes
      arrivals[name(slot)] = simulation.add(
        .communication, stage: stage, seconds: message.seconds, after: [end])
    }

    /// Sums what was not summed yet, runs the optimizer, gathers what it changed.
    mutating func addUpdate(_ stage: Int) {
      let trained = program.turn.passes[program.turn.trainedPass]
      let count = (0..<program.chunkCount).flatMap {
        program.units($0 * program.stageCount + stage)
      }.reduce(0) { $0 + program.costs.trainedCount(trained, $1) }
      let update = program.costs.update(
        count: count, isReduced: program.isReduced(program.microbatchCount - 1),
        hasAverage: program.turn.hasAverage)
      sent[stage].updates += update.reduceBytes + update.gatherBytes
      wait(update.reduceSeconds, stage)
      compute(update.optimizerSeconds, stage, after: reductions[stage])
      wait(update.gatherSeconds, stage)
    }
  }

  /// Whether gradients of a microbatch are summed block by block: under ZeRO-2 and 3 always, else only where
  /// that is hidden behind the last microbatch's way back.
  private func isReduced(_ microbatch: Int) -> Bool {
    layout.zeroStage >= 2 || (layout.overlaps && microbatch == microbatchCount - 1)
  }
}
