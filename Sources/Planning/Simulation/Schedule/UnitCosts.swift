// Seconds and bytes of one unit of one pass on one rank, under a layout.
//
// Per block and pass, each way, with h elements of hidden states of a microbatch:
//   Ulysses, s ranks           4 all-to-alls (q, k, v, output) of h/(r s t) elements
//   ring attention, r ranks    r − 1 hops of k and v, 2 h/(r s t) elements each; back dk and dv as well
//   tensor parallel, t ranks   2 all-gathers and 2 reduce-scatters of h/(r s) elements, norms sharded by tokens
// so for HunyuanVideo; what Vchitect's blocks exchange is counted by streams and branches (`UnitExchanges`).
// With overlap a ring's hops hide behind attention, and only what is longer counts.
// The velocity is gathered once a pass, in fp32, over all that share tokens. A way back that recomputes exchanges
// the way forth's once more. ZeRO-3 gathers a unit before each way,
// ZeRO-2 and 3 sum a unit's gradients to their owners after its way back.
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

  package init(
    model: SimulatedModel, machine: MachineModel, state: StateBytes = .float32,
    precision: SimulatedPrecision = .fp32, recomputedShare: Double = 0
  ) {
    self.model = model
    self.machine = machine
    self.state = state
    self.precision = precision
    self.recomputedShare = recomputedShare
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

  /// Everything but the sums of gradients, `count` times.
  func repeated(_ count: Double) -> UnitCosts {
    var product = self
    product.computeSeconds *= count
    product.exchangeSeconds *= count
    product.exchangeBytes *= count
    product.gatherSeconds *= count
    product.gatherBytes *= count
    return product
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
      addExchanges(&costs, unit, count: 1, hops: 1, attentions: 1)
    } else if tokens > 1 {
      let bytes = 4 * Double(work.model.latentElementCount * work.model.samplesPerMicrobatch)
      costs.exchangeSeconds = network.gather(sharing, byteCount: bytes)
      costs.exchangeBytes = Self.share(sharing) * bytes
    }
    addGather(&costs, pass, unit)
    return costs.repeated(pass.repeatCount)
  }

  /// Way back of a pass that has one.
  package func backward(_ pass: SimulatedPass, _ unit: SimulatedUnit) -> UnitCosts {
    var costs = UnitCosts()
    costs.computeSeconds =
      pass.backwardOperations(unit, tokens: tokens, tp: tp, recomputedShare: work.recomputedShare)
      / rate
    if unit.isBlock {
      let again = work.recomputedShare
      addExchanges(&costs, unit, count: 1 + again, hops: 2 + again, attentions: 2 + again)
    }
    addGather(&costs, pass, unit)
    let bytes = trainedCount(pass, unit) / Double(tp) * work.state.gradient
    costs.reduceSeconds = network.gather(shard, byteCount: bytes)
    costs.reduceBytes = Self.share(shard) * bytes
    return costs
  }

  /// Parameters of a unit that a pass trains.
  func trainedCount(_ pass: SimulatedPass, _ unit: SimulatedUnit) -> Double {
    switch pass.kind {
    case .silent: 0
    case .trained: unit.parameterCount
    case .adapterTrained: unit.adapterCount
    }
  }

  /// - Parameters:
  ///   - count: exchanges of tokens, in those of a way forth.
  ///   - hops: tensors that go round, in those of a way forth.
  ///   - attentions: operations of attention, likewise.
  private func addExchanges(
    _ costs: inout UnitCosts, _ unit: SimulatedUnit, count: Double, hops: Double,
    attentions: Double
  ) {
    let exchanges = unit.exchanges ?? .joint(work.model.hiddenElementCount)
    let elementSize = work.state.activation
    if sp > 1 {
      for tensors in exchanges.scattered {
        let bytes = tensors.elementCount * elementSize / Double(tokens * tp)
        costs.exchangeSeconds +=
          tensors.count * count * network.allToAll(sequence, byteCount: bytes)
        costs.exchangeBytes += tensors.count * count * Self.share(sequence) * bytes
      }
    }
    addShared(&costs, exchanges, count: count)
    if ring > 1 {
      let bytes = exchanges.circulated * elementSize / Double(tokens * tp)
      let hop = network.message(byteCount: bytes, crossesNodes: crossesInRing)
      let seconds = hops * Double(ring - 1) * hop
      let hidden = attentions * unit.attention / Double(tokens * tp) / rate
      costs.exchangeSeconds += layout.overlaps ? max(0, seconds - hidden) : seconds
      costs.exchangeBytes += hops * Double(ring - 1) * bytes
    }
    if tp > 1 {
      for tensors in exchanges.gathered {
        let bytes = tensors.elementCount * elementSize / Double(tokens)
        costs.exchangeSeconds += tensors.count * count * network.gather(tensor, byteCount: bytes)
        costs.exchangeBytes += tensors.count * count * Self.share(tensor) * bytes
      }
    }
  }

  /// Gathers of keys and values that all need, over the ranks of a piece of the tokens, then over pieces.
  private func addShared(
    _ costs: inout UnitCosts, _ exchanges: UnitExchanges, count: Double
  ) {
    let shared = exchanges.shared
    guard shared.count > 0 else { return }
    let bytes = shared.elementCount * work.state.activation / Double(tp)
    let isGathered = sp > 1 && !exchanges.hasSharedHeads
    let rounds = [
      (sequence, isGathered ? bytes / Double(ring) : 0),
      (ringGroup, bytes / (isGathered ? 1 : Double(sp))),
    ]
    for (group, bytes) in rounds where group.size > 1 && bytes > 0 {
      costs.exchangeSeconds += shared.count * count * network.gather(group, byteCount: bytes)
      costs.exchangeBytes += shared.count * count * Self.share(group) * bytes
    }
  }

  private func addGather(
    _ costs: inout UnitCosts, _ pass: SimulatedPass, _ unit: SimulatedUnit
  ) {
    guard layout.zeroStage >= 3 && shard.size > 1 else { return }
    let count = unit.parameterCount + (pass.isAdapted ? unit.adapterCount : 0)
    let bytes = count / Double(tp) * work.state.parameter
    costs.gatherSeconds = network.gather(shard, byteCount: bytes)
    costs.gatherBytes = Self.share(shard) * bytes
  }

  // MARK: Between stages and after the turn

  /// Hidden states of a microbatch from one stage to the next.
  func message(from stage: Int, to next: Int) -> (seconds: Double, bytes: Double) {
    let bytes = work.model.hiddenElementCount / Double(tokens * tp) * work.state.activation
    let crosses = layout.crossesNodes(fromStage: stage, to: next)
    return (network.message(byteCount: bytes, crossesNodes: crosses), bytes)
  }

  /// A result of the last stage back to the first: latents, in fp32.
  func latents(from stage: Int) -> (seconds: Double, bytes: Double) {
    let bytes = 4 * Double(work.model.latentElementCount * work.model.samplesPerMicrobatch)
    let crosses = layout.crossesNodes(fromStage: stage, to: 0)
    return (network.message(byteCount: bytes, crossesNodes: crosses), bytes)
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

  /// - Parameters:
  ///   - count: trained parameters of the stage, whole.
  ///   - isReduced: whether gradients were summed to their owners block by block.
  func update(count: Double, isReduced: Bool, hasAverage: Bool) -> Update {
    let replicas = layout.replicaGroup
    let gradients = count / Double(tp) * work.state.gradient
    let isSharded = layout.zeroStage >= 1
    var update = Update()
    if !isReduced {
      update.reduceSeconds = network.gather(shard, byteCount: gradients)
      update.reduceBytes = Self.share(shard) * gradients
    }
    if !isSharded {
      update.gatherSeconds += network.gather(shard, byteCount: gradients)
      update.gatherBytes += Self.share(shard) * gradients
    }
    let own = isSharded ? gradients / Double(layout.shardCount) : gradients
    update.reduceSeconds += network.allReduce(replicas, byteCount: own)
    update.reduceBytes += 2 * Self.share(replicas) * own
    // 28 bytes of a parameter pass through memory, 36 with the average.
    let owned = count / Double(tp) / (isSharded ? Double(layout.shardCount) : 1)
    update.optimizerSeconds = owned * (hasAverage ? 36 : 28) / work.machine.memoryBandwidth
    if layout.zeroStage == 1 || layout.zeroStage == 2 {
      let parameters = count / Double(tp) * work.state.parameter
      update.gatherSeconds += network.gather(shard, byteCount: parameters)
      update.gatherBytes += Self.share(shard) * parameters
    }
    return update
  }
}
