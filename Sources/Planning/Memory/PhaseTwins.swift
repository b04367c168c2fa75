// The steps of a run on one rank, over sizes: the twins of TeachPhase, DistillPhase, ConsistencyPhase and
// of the samplers. Every phase starts with what it holds throughout, then runs its steps as the phase
// does; the peak is whatever the ledger saw.

import MeshLayout

/// What one phase costs one rank.
struct RankPhase {
  var memory: PlannedMemory
  /// What it does in a step, as a mean over steps.
  var work: StepWork
  /// What the rank runs in a row in the turns of a step, where it is a stage of a pipeline.
  var turns: [[StageTurn]] = []
  /// Of a rank with one role of a split distillation: operations by turn.
  var roleTurns: RoleTurns?
}

/// One rank of a run.
struct PhaseTwins {
  let sizes: WorkloadSizes
  let place: RankPlace
  /// Microbatches of this rank.
  let microbatchCount: Int
  /// Microbatches that are computed at the same time by ranks that load blocks together.
  let roundCount: Int
  /// What it has of the tokens of them in training; nil: all.
  let part: SequencePart?
  /// What it has of the blocks in training; nil: all.
  let stage: StageTwin?
  /// Whether W and the generator are kept packed.
  let keepsPackedWeights: Bool
  /// To how many ranks of the other role it sends latents, where roles are split.
  var latentReceiverCount = 0

  var network: NetworkSizes { sizes.network }
  var sampleCount: Int { sizes.samplesPerMicrobatch }
  var latentCount: Int { sampleCount * network.latentCount }

  /// What lives through every phase.
  struct State {
    let ledger: PlannedLedger
    let group: ShardGroupTwin
    let base: ParametersTwin
    let texts: [PlannedLedger.Block]
  }

  /// - Parameter draws: whether W is drawn in this phase: unit by unit, also those of other stages.
  func state(draws: Bool = true) -> State {
    let ledger = PlannedLedger()
    if sizes.offloadsActivations { ledger.activationStore = ActivationStoreTwin(ledger) }
    let group = shardGroup(ledger)
    let base = ParametersTwin(ledger, role: .base, units: sizes.networkUnits, group: group)
    if draws { base.initialize() }
    if keepsPackedWeights { base.packedByteCount = sizes.packedWeightByteCount }
    // Partial sums of the step before are kept for the next one, into the next phase too.
    base.reduceScatter()
    base.leaveRooms()
    base.sumOverReplicas()
    return State(
      ledger: ledger, group: group, base: base,
      texts: sizes.storedTextElementCounts.map { ledger.allocate($0, .common, .parameters) })
  }

  /// The ranks that hold the networks together, with exchanges of their own.
  func shardGroup(_ ledger: PlannedLedger) -> ShardGroupTwin {
    func exchange(_ rank: Int) -> ExchangeTwin {
      ExchangeTwin(ledger, rank: rank, bucketByteCount: sizes.bucketByteCount)
    }
    var group = ShardGroupTwin(
      rank: place.rank, rankCount: place.rankCount, zeroStage: place.zeroStage,
      exchange: exchange(place.rank), tensorDegree: part?.tensorDegree ?? 1)
    if let stage {
      let rank = place.rank % place.stageSize
      group.stage = StageShardsTwin(
        count: stage.count, rank: rank, rankCount: place.stageSize,
        exchange: exchange(rank))
    }
    group.besides = besides(ledger)
    if place.replicaCount > 1 {
      group.replicas = ReplicasTwin(
        rank: place.replica, rankCount: place.replicaCount, exchange: exchange(place.replica))
    }
    return group
  }

  /// As `RankSet` makes them.
  func besides(_ ledger: PlannedLedger) -> (loads: ExchangeTwin, sums: ExchangeTwin)? {
    let count = stage == nil ? place.rankCount : place.stageSize
    guard sizes.overlapsExchange, place.zeroStage != .optimizer, count > 1 else { return nil }
    let rank = stage == nil ? place.rank : place.rank % place.stageSize
    func exchange() -> ExchangeTwin {
      ExchangeTwin(ledger, rank: rank, bucketByteCount: sizes.bucketByteCount)
    }
    return (exchange(), exchange())
  }

  func weights(
    _ state: State, _ role: PlannedRole, _ units: [PlannedUnit]
  ) -> ParametersTwin {
    let parameters = ParametersTwin(state.ledger, role: role, units: units, group: state.group)
    if keepsPackedWeights && role != .fake && parameters.stage < .parameters {
      parameters.packedByteCount = sizes.packedWeightByteCount
    }
    return parameters
  }

  /// Latents and first frames of a microbatch.
  func batch(_ ledger: PlannedLedger) -> [PlannedLedger.Block] {
    let frame = network.outChannels * network.latentHeight * network.latentWidth
    return [ledger.allocate(latentCount, .common, .activations)]
      + (0..<sampleCount).map { _ in ledger.allocate(frame, .common, .activations) }
  }

  /// What `body` adds to the counters of a ledger.
  func work(_ ledger: PlannedLedger, _ body: () -> Void) -> StepWork {
    let before = ledger.work
    body()
    return ledger.work + -1 * before
  }

  func phase(
    _ ledger: PlannedLedger, _ work: StepWork, turns: [[StageTurn]] = []
  ) -> RankPhase {
    RankPhase(
      memory: ledger.memory, work: work, turns: turns.filter { !$0.isEmpty })
  }

  /// The gradient sums of a turn; `turns` gets what a stage ran.
  func gradients(
    _ ledger: PlannedLedger, of targets: [ParametersTwin], _ passes: PassCount,
    turns: inout [StageTurn], _ body: @escaping (_ microbatch: Int) -> Void
  ) -> [PlannedLedger.Block] {
    guard let stage else {
      return microbatchSum(ledger, of: targets, microbatchCount: microbatchCount, body)
    }
    let (sums, ran) = microbatchSum(
      ledger, of: targets, microbatchCount: microbatchCount, on: stage, passes, body)
    turns = ran
    return sums
  }

  /// Microbatches whose parameters get no gradients, in flight where there are stages.
  /// - Returns: what a stage ran.
  @discardableResult
  func forEach(
    _ count: Int, _ ledger: PlannedLedger, _ body: @escaping (_ microbatch: Int) -> Void
  ) -> [StageTurn] {
    guard let stage else {
      (0..<count).forEach(body)
      return []
    }
    return stage.run(count, .several, ledger, body)
  }

  // MARK: Teach

  func teach() -> RankPhase {
    let state = state()
    let ledger = state.ledger
    let optimizer = OptimizerTwin(state.base, hasAverage: true)
    let trained = NetworkTwin(
      sizes: network, parameters: state.base, isTrainable: true, part: part, stage: stage)
    var turns: [StageTurn] = []
    let work = work(ledger) {
      let gradients = gradients(ledger, of: [state.base], .one, turns: &turns) { _ in
        let batch = batch(ledger)
        let noise = ledger.allocate(latentCount, .base, .activations)
        let noisy = ledger.allocate(latentCount, .base, .activations)
        let tape = TapeTwin(ledger, role: .base)
        let velocity = trained.velocity(
          tape, noisy: ValueTwin(constant: noisy), sampleCount: sampleCount,
          recomputedShare: sizes.recomputedShare)
        let gradient = tape.result(latentCount)
        tape.backward([velocity])
        withExtendedLifetime((batch, noise, noisy, velocity, gradient)) {}
      }
      optimizer.step()
      withExtendedLifetime(gradients) {}
    }
    withExtendedLifetime((state.base, state.texts, optimizer)) {}
    return phase(ledger, work, turns: [turns])
  }

  // MARK: Distill

  func distill() -> RankPhase? {
    switch sizes.method {
    case .none: nil
    case .consistency: consistency()
    case .distributionMatching: distributionMatching()
    }
  }

  // MARK: The consistency baseline

  private func consistency() -> RankPhase {
    let state = state(draws: stage == nil && sizes.teachStepCount == 0)
    let ledger = state.ledger
    let weights = (0..<2).map { _ in self.weights(state, .generator, sizes.networkUnits) }
    let optimizer = OptimizerTwin(weights[0], hasAverage: sizes.keepsGeneratorAverage)
    let generator = NetworkTwin(
      sizes: network, parameters: weights[0], isTrainable: true, part: part, stage: stage)
    let target = NetworkTwin(sizes: network, parameters: weights[1], part: part, stage: stage)
    let teacher = NetworkTwin(sizes: network, parameters: state.base, part: part, stage: stage)
    var turns: [StageTurn] = []
    let work = work(ledger) {
      let gradients = gradients(ledger, of: [weights[0]], .several, turns: &turns) { _ in
        let batch = batch(ledger)
        let noise = ledger.allocate(latentCount, .generator, .activations)
        let tape = TapeTwin(ledger, role: .generator)
        let silent = TapeTwin(ledger, role: .generator, isRecording: false)
        let noisy = tape.result(latentCount)
        estimateTarget(target, teacher, silent, ValueTwin(constant: noisy))
        let (estimate, gradient) = estimate(generator, tape, consume noisy)
        tape.backward([estimate])
        withExtendedLifetime((batch, noise, estimate, gradient)) {}
      }
      optimizer.step()
      weights[1].dropUnits()
      withExtendedLifetime(gradients) {}
    }
    withExtendedLifetime((state.base, state.texts, weights, optimizer)) {}
    return phase(ledger, work, turns: [turns])
  }

  /// What the target makes of a step of the teacher: nothing is left of it.
  private func estimateTarget(
    _ target: NetworkTwin, _ teacher: NetworkTwin, _ silent: TapeTwin, _ noisy: ValueTwin
  ) {
    let moved = moved(teacher, silent, noisy)
    let velocity = target.velocity(silent, noisy: moved, sampleCount: sampleCount)
    withExtendedLifetime((moved, velocity)) {}
  }

  private func moved(
    _ teacher: NetworkTwin, _ silent: TapeTwin, _ noisy: ValueTwin
  ) -> ValueTwin {
    let velocity = guided(teacher, silent, noisy)
    let moved = silent.combine(noisy, velocity)
    withExtendedLifetime(velocity) {}
    return moved
  }

  /// As `GuidedDenoiser`.
  func guided(_ network: NetworkTwin, _ silent: TapeTwin, _ noisy: ValueTwin) -> ValueTwin {
    let conditional = network.velocity(silent, noisy: noisy, sampleCount: sampleCount)
    guard sizes.isGuided else { return conditional }
    let unconditional = network.velocity(silent, noisy: noisy, sampleCount: sampleCount)
    let velocity = silent.combine(conditional, unconditional)
    withExtendedLifetime((conditional, unconditional)) {}
    return velocity
  }

  private func estimate(
    _ generator: NetworkTwin, _ tape: TapeTwin, _ noisy: consuming PlannedLedger.Block
  ) -> (estimate: ValueTwin, gradient: PlannedLedger.Block) {
    let start = ValueTwin(constant: noisy)
    let velocity = generator.velocity(
      tape, noisy: start, sampleCount: sampleCount, recomputedShare: sizes.recomputedShare)
    let estimate = tape.combine(start, velocity)
    let gradient = tape.result(latentCount)
    withExtendedLifetime((start, velocity)) {}
    return (estimate, gradient)
  }

  // MARK: Evaluate

  /// Re-noising steps of a sampler.
  func sample(
    _ ledger: PlannedLedger, _ network: NetworkTwin, from noise: PlannedLedger.Block,
    stepCount: Int, role: PlannedRole
  ) -> PlannedLedger.Block {
    let sampleCount = noise.count / network.sizes.latentCount
    var state = noise
    for _ in 0..<stepCount {
      let tape = TapeTwin(ledger, role: role, isRecording: false)
      let clean: PlannedLedger.Block
      do {
        let velocity = network.velocity(
          tape, noisy: ValueTwin(constant: state), sampleCount: sampleCount)
        clean = ledger.allocate(state.count, role, .activations)
        withExtendedLifetime(velocity) {}
      }
      let fresh = ledger.allocate(state.count, .common, .activations)
      state = ledger.allocate(state.count, role, .activations)
      withExtendedLifetime((clean, fresh)) {}
    }
    return state
  }

  /// Batches of a sampler in the evaluation.
  private var batchesPerRank: Int {
    let dataRankCount = roundCount * place.replicaCount
    return (sizes.evaluationBatchCount + dataRankCount - 1) / dataRankCount
  }

  /// Partial sums that are left in the exchanges of a group from the network that was trained last, which is booked
  /// elsewhere.
  func leaveTraining(of units: [PlannedUnit], _ role: PlannedRole, _ group: ShardGroupTwin) {
    let trained = ParametersTwin(PlannedLedger(), role: role, units: units, group: group)
    trained.reduceScatter()
    trained.sumOverReplicas()
  }

  /// Sampling batches of clips; a step is one pass of the network over one.
  /// - Parameter joining: books what a rank holds beside these networks while they are joined from split roles, and
  ///   returns the ranks of its role, whose exchanges keep what training left; nil where roles are colocated.
  func evaluate(joining: ((State) -> ShardGroupTwin)? = nil) -> RankPhase {
    let state = state()
    let ledger = state.ledger
    let critic =
      sizes.method == .distributionMatching
      ? [sizes.adapterUnits, joining == nil ? sizes.headUnits : []].filter { !$0.isEmpty } : []
    if joining == nil, sizes.method != .none {
      leaveTraining(
        of: critic.last ?? sizes.networkUnits, critic.isEmpty ? .generator : .fake, state.group)
    }
    let student =
      sizes.method == .none
      ? state.base : weights(state, .generator, sizes.networkUnits)
    let critics = critic.map { weights(state, .fake, $0) }
    let set = joining?(state)
    // Those in flight.
    let batchCount = min(stage?.count ?? 1, batchesPerRank)
    let work = work(ledger) {
      for (parameters, role) in [(state.base, PlannedRole.base), (student, .generator)] {
        let twin = NetworkTwin(sizes: network, parameters: parameters, part: part, stage: stage)
        var latents: [PlannedLedger.Block] = []
        forEach(batchCount, ledger) { _ in
          let noise = ledger.allocate(
            sizes.evaluationBatch * network.latentCount, .common, .activations)
          latents.append(sample(ledger, twin, from: noise, stepCount: 2, role: role))
          withExtendedLifetime(noise) {}
        }
        withExtendedLifetime(latents) {}
      }
    }
    withExtendedLifetime((state.base, state.texts, student, critics, set)) {}
    return phase(ledger, 1 / Double(4 * batchCount) * work)
  }
}
