// Seconds and bytes of one unit of one pass on one rank, under a layout.
//
// Per block and pass, each way, with h elements of hidden states of a microbatch:
//   Ulysses, s ranks           4 all-to-alls (q, k, v, output) of h/(r s t) elements
//   ring attention, r ranks    r − 1 hops of k and v, 2 h/(r s t) elements each; back dk and dv as well
//   tensor parallel, t ranks   2 all-gathers and 2 reduce-scatters of h/(r s) elements (1 and 1 where attention and MLP run
//                              side by side), norms sharded by tokens; the columns of modulations are gathered
// so for HunyuanVideo; what Vchitect's blocks exchange is counted by streams and branches (`UnitExchanges`).
// All of it is waited for, as the worker does but for what `exchange.overlap` sends while it computes, and at each exchange
// ranks lose some time besides (`MachineModel.exchangeWait`). The velocity is
// gathered once a pass, in fp32, over all that share tokens. A way back that recomputes exchanges the way forth's once
// more, one that does not gathers for tensor parallel once more. ZeRO-3 gathers a unit before each way, ZeRO-2 and 3 sum
// a unit's gradients to their owners after its way back; where weights are cut, a rank has (c − w)/t + w of a block's c
// elements, w of which nobody cuts, and the owners, all r s t z ranks of a stage, send each rank its part.
// Source: specs of distributed systems §3, §4 (1909.08053, 2205.05198, 2309.14509, 2310.01889).

import MeshLayout

/// What all costs of a simulated step depend on.
package struct SimulatedWork: Equatable, Sendable {
  package var model: SimulatedModel
  package var machine: MachineModel
  package var state: StateBytes
  package var precision: SimulatedPrecision
  /// Share of the blocks that keep their input only and run again on the way back.
  package var recomputedShare: Double
  /// Whether rollouts of microbatches that are computed at the same time have different depths.
  package var spreadsDepths: Bool

  package init(
    model: SimulatedModel, machine: MachineModel, state: StateBytes = .float32,
    precision: SimulatedPrecision = .fp32, recomputedShare: Double = 0, spreadsDepths: Bool = false
  ) {
    self.model = model
    self.machine = machine
    self.state = state
    self.precision = precision
    self.recomputedShare = recomputedShare
    self.spreadsDepths = spreadsDepths
  }
}

/// Costs of one way of a pass through one unit.
package struct UnitCosts: Equatable, Sendable {
  package var computeSeconds = 0.0
  /// Exchanges inside the unit, for which it waits.
  package var exchangeSeconds = 0.0
  package var exchangeBytes = 0.0
  /// Parameters gathered before it.
  package var gatherSeconds = 0.0
  package var gatherBytes = 0.0
  /// Gradients summed to their owners after it.
  package var reduceSeconds = 0.0
  package var reduceBytes = 0.0

  package static func + (left: UnitCosts, right: UnitCosts) -> UnitCosts {
    var sum = left
    sum.computeSeconds += right.computeSeconds
    sum.exchangeSeconds += right.exchangeSeconds
    sum.exchangeBytes += right.exchangeBytes
    sum.gatherSeconds += right.gatherSeconds
    sum.gatherBytes += right.gatherBytes
    sum.reduceSeconds += right.reduceSeconds
    sum.reduceBytes += right.reduceBytes
    return sum
  }

  /// Everything but the sums of gradients, `count` times, with parameters gathered `loadCount` times.
  func repeated(_ count: Double, loadCount: Double) -> UnitCosts {
    var product = self
    product.computeSeconds *= count
    product.exchangeSeconds *= count
    product.exchangeBytes *= count
    product.scaleGather(by: loadCount)
    return product
  }

  mutating func scaleGather(by factor: Double) {
    gatherSeconds *= factor
    gatherBytes *= factor
  }
}

/// Costs under one layout.
package struct LayoutCosts: Sendable {
  package let work: SimulatedWork
  package let layout: SimulatedLayout
  package let network: NetworkModel

  // Kept, since looking them up would take most of the time of a simulation.
  private let sp: Int
  private let tp: Int
  private let ring: Int
  private let tokens: Int
  private let rate: Double
  private let shard: RankGroup
  private let sequence: RankGroup
  private let tensor: RankGroup
  private let ringGroup: RankGroup
  private let sharing: RankGroup
  private let crossesInRing: Bool

  package init(_ work: SimulatedWork, _ layout: SimulatedLayout) {
    self.work = work
    self.layout = layout
    network = NetworkModel(work.machine, ranksOnNode: layout.ranksOnNode)
    sp = layout.shape[.sp]
    tp = layout.shape[.tp]
    ring = layout.shape[.ring]
    tokens = layout.tokenDegree
    rate = work.machine.productRate(work.precision)
    shard = layout.shardGroup
    sequence = layout.sequenceGroup
    tensor = layout.tensorGroup
    sharing = layout.tokenGroup
    ringGroup = layout.ringGroup
    crossesInRing = ringGroup.perNode < ring
  }

  private static func share(_ group: RankGroup) -> Double {
    Double(group.size - 1) / Double(group.size)
  }

  /// Way forth.
  package func forward(_ pass: SimulatedPass, _ unit: SimulatedUnit) -> UnitCosts {
    var costs = UnitCosts()
    costs.computeSeconds = pass.forwardOperations(unit, tokens: tokens, tp: tp) / rate
    if unit.isBlock {
      addExchanges(&costs, unit, count: 1, hops: 1, gathers: 1, columns: 1)
    } else {
      addCollective(&costs, sharing, latentByteCount)
    }
    addGather(&costs, pass, unit)
    return costs.repeated(pass.repeatCount, loadCount: loadCount(pass))
  }

  /// Way back of a pass that has one.
  package func backward(_ pass: SimulatedPass, _ unit: SimulatedUnit) -> UnitCosts {
    var costs = UnitCosts()
    let again = work.recomputedShare
    costs.computeSeconds =
      pass.backwardOperations(unit, tokens: tokens, tp: tp, recomputedShare: again) / rate
    if unit.isBlock {
      // What an adapter changes, a modulation does not depend on.
      let columns = (pass.kind == .trained ? 1 : 0) + again
      addExchanges(
        &costs, unit, count: 1 + again, hops: 2 + again, gathers: 2, columns: columns)
    }
    addGather(&costs, pass, unit)
    let trained = computedCount(
      unit, network: pass.kind == .trained, adapter: pass.kind == .adapterTrained)
    let bytes = trained * work.state.gradient
    costs.reduceSeconds = network.allToAll(shard, byteCount: bytes)
    costs.reduceBytes = Self.share(shard) * bytes
    return costs
  }

  /// How often a pass loads its parameters: ranks that load together, as often as the deepest of their rollouts.
  private func loadCount(_ pass: SimulatedPass) -> Double {
    guard let stepCount = pass.stepCount else { return pass.repeatCount }
    return WorkloadSizes.deepestRollout(
      stepCount: stepCount,
      peerCount: work.spreadsDepths ? min(layout.shape[.zero], stepCount) : 1)
  }

  /// Parameters of a unit that a pass trains, over all ranks.
  func trainedCount(_ pass: SimulatedPass, _ unit: SimulatedUnit) -> Double {
    switch pass.kind {
    case .silent: 0
    case .trained: unit.parameterCount
    case .adapterTrained: unit.adapterCount
    }
  }

  /// Elements that a rank computes with.
  func computedCount(_ unit: SimulatedUnit, network: Bool, adapter: Bool) -> Double {
    func part(_ count: Double, _ whole: Double) -> Double {
      unit.isBlock ? (count - whole) / Double(tp) + whole : count
    }
    return (network ? part(unit.parameterCount, unit.wholeCount) : 0)
      + (adapter ? part(unit.adapterCount, unit.wholeAdapterCount) : 0)
  }

  /// - Parameters:
  ///   - count: exchanges of tokens, in those of a way forth.
  ///   - hops: tensors that go round, in those of a way forth.
  ///   - gathers: gathers of what is not kept, likewise.
  ///   - columns: of columns of modulations, likewise.
  private func addExchanges(
    _ costs: inout UnitCosts, _ unit: SimulatedUnit, count: Double, hops: Double, gathers: Double,
    columns: Double
  ) {
    let exchanges = unit.exchanges ?? .joint([work.model.hiddenElementCount])
    let elementSize = work.state.activation
    for tensors in exchanges.scattered {
      let bytes = tensors.elementCount * elementSize / Double(tokens * tp)
      addCollective(&costs, sequence, bytes, count: tensors.count * count)
    }
    addShared(&costs, exchanges, count: count)
    if ring > 1 {
      let bytes = exchanges.circulated * elementSize / Double(tokens * tp)
      let hop = network.message(byteCount: bytes, crossesNodes: crossesInRing)
      costs.exchangeSeconds += hops * Double(ring - 1) * (hop + work.machine.exchangeWait)
      costs.exchangeBytes += hops * Double(ring - 1) * bytes
    }
    if tp > 1 {
      func add(_ tensors: [ExchangedTensors], _ count: Double, over parts: Int) {
        for tensors in tensors {
          addCollective(
            &costs, tensor, tensors.elementCount * elementSize / Double(parts),
            count: tensors.count * count)
        }
      }
      add(exchanges.gathered, gathers, over: tokens)
      add(exchanges.reduced, count, over: tokens)
      add(exchanges.columns, columns, over: 1)
    }
  }

  /// All-to-alls, gathers or sums of so many bytes, one after the other.
  private func addCollective(
    _ costs: inout UnitCosts, _ group: RankGroup, _ byteCount: Double, count: Double = 1
  ) {
    guard group.size > 1, byteCount > 0 else { return }
    costs.exchangeSeconds +=
      count * (network.allToAll(group, byteCount: byteCount) + work.machine.exchangeWait)
    costs.exchangeBytes += count * Self.share(group) * byteCount
  }

  /// Gathers of keys and values that all need, over the ranks of a piece of the tokens, then over pieces.
  private func addShared(
    _ costs: inout UnitCosts, _ exchanges: UnitExchanges, count: Double
  ) {
    let shared = exchanges.shared
    let bytes = shared.elementCount * work.state.activation / Double(tp)
    let isGathered = sp > 1 && !exchanges.hasSharedHeads
    let rounds = [
      (sequence, isGathered ? bytes / Double(ring) : 0),
      (ringGroup, bytes / (isGathered ? 1 : Double(sp))),
    ]
    for (group, bytes) in rounds {
      addCollective(&costs, group, bytes, count: shared.count * count)
    }
  }

  private func addGather(
    _ costs: inout UnitCosts, _ pass: SimulatedPass, _ unit: SimulatedUnit
  ) {
    guard layout.zeroStage == .parameters && shard.size > 1 else { return }
    let bytes =
      computedCount(unit, network: true, adapter: pass.loadsAdapter) * work.state.parameter
    costs.gatherSeconds = network.allToAll(shard, byteCount: bytes)
    costs.gatherBytes = Self.share(shard) * bytes
  }

  // MARK: Between stages, between roles, and after the turn

  /// A message or several, one after the other.
  struct Message {
    var seconds: Double
    var bytes: Double
  }

  private func message(_ byteCount: Double, crossesNodes: Bool, count: Int = 1) -> Message {
    Message(
      seconds: Double(count) * network.message(byteCount: byteCount, crossesNodes: crossesNodes),
      bytes: Double(count) * byteCount)
  }

  /// The state of a microbatch from one stage to the next, or what of its gradients is wanted back.
  /// - Parameter block: the one that it stands before.
  func message(
    from stage: Int, to next: Int, beforeBlock block: Int, hasCondition: Bool
  ) -> Message {
    let handed = work.model.handedElementCount(beforeBlock: block)
    let count =
      work.model.hiddenElementCount / Double(tokens * tp) + (hasCondition ? handed.condition : 0)
    var message = message(
      count * work.state.activation + 4 * handed.words,
      crossesNodes: layout.crossesNodes(fromStage: stage, to: next))
    message.seconds += work.machine.exchangeWait
    return message
  }

  /// Bytes of a microbatch's latents, in fp32.
  var latentByteCount: Double {
    4 * Double(work.model.latentElementCount * work.model.samplesPerMicrobatch)
  }

  /// A velocity of the last stage to all others.
  func velocity(from stage: Int) -> Message {
    var message = message(
      latentByteCount, crossesNodes: layout.crossesNodes(fromStage: stage, to: 0),
      count: layout.stageCount - 1)
    message.seconds += work.machine.exchangeWait
    return message
  }

  /// What follows the passes of a turn.
  struct Update {
    /// Sums that were not made block by block.
    var reduceSeconds = 0.0
    var reduceBytes = 0.0
    /// AdamW on the own range.
    var optimizerSeconds = 0.0
    /// Updated parameters to all.
    var gatherSeconds = 0.0
    var gatherBytes = 0.0
  }

  /// - Parameter count: trained parameters of the stage, whole.
  func update(count: Double, hasAverage: Bool) -> Update {
    let replicas = layout.replicaGroup
    let gradients = count * work.state.gradient
    var update = Update()
    if !layout.sumsBlocks {
      update.reduceSeconds = network.allToAll(shard, byteCount: gradients)
      update.reduceBytes = Self.share(shard) * gradients
    }
    let own = gradients / Double(layout.shardCount)
    update.reduceSeconds += network.allReduce(replicas, byteCount: own)
    update.reduceBytes += 2 * Self.share(replicas) * own
    // 28 bytes of a parameter pass through memory, 36 with the average.
    let owned = count / Double(layout.shardCount)
    update.optimizerSeconds = owned * (hasAverage ? 36 : 28) / work.machine.memoryBandwidth
    if layout.zeroStage != .parameters {
      let parameters = count * work.state.parameter
      update.gatherSeconds += network.allToAll(shard, byteCount: parameters)
      update.gatherBytes += Self.share(shard) * parameters
    }
    return update
  }
}

extension SimulatedLayout {
  /// Whether gradients of a microbatch are summed block by block.
  var sumsBlocks: Bool { zeroStage != .optimizer }
}
