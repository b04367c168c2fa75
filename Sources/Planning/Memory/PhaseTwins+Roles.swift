// Distillation on a rank that has one role: the twins of SplitNetworks, GeneratorTurns and ScoreTurns.

import MeshLayout

/// What one rank does, by turn.
struct RoleTurns {
  struct Turn {
    var operationCount: Double
    /// What it runs in a row, where it is a stage of a pipeline.
    var stage: [StageTurn] = []
  }

  /// Only in steps with a generator turn: the scores of all samples, or the generator's training.
  var generatorTurn: Turn
  /// In every step: the critic's training, or the samples of the next step.
  var everyStep: Turn
}

extension PhaseTwins {
  /// What is left of the phase before when this rank holds the network of its role.
  private struct HandedOver {
    let ledger: PlannedLedger
    /// Of all ranks, which keep partial sums from phase to phase.
    let all: ShardGroupTwin
    let group: ShardGroupTwin
    let network: ParametersTwin
    let texts: [PlannedLedger.Block]
  }

  /// - Parameters:
  ///   - role: of this rank, which `self` places among all ranks.
  ///   - set: the same rank among those of its role.
  func distill(_ role: RankRole, in set: PhaseTwins) -> RankPhase {
    let handedOver = handOver(role, to: set)
    return switch role {
    case .score: set.scoreTurns(handedOver)
    case .generator: set.generatorTurns(handedOver)
    }
  }

  /// W is whole on both sides, or goes from the one to the other unit by unit.
  private func handOver(_ role: RankRole, to set: PhaseTwins) -> HandedOver {
    let taught = state()
    let group = set.shardGroup(taught.ledger)
    let isWhole = max(taught.base.stage, set.place.zeroStage) < .parameters
    let network: ParametersTwin
    if role == .score && isWhole {
      network = taught.base
    } else {
      network = weights(
        State(ledger: taught.ledger, group: group, base: taught.base, texts: []),
        role == .score ? .base : .generator, sizes.networkUnits)
      // As many elements at a time as when they are drawn.
      taught.base.initialize()
    }
    return HandedOver(
      ledger: taught.ledger, all: taught.group, group: group, network: network,
      texts: taught.texts)
  }

  /// Evaluation by all ranks, after they have joined the networks again.
  func evaluate(after role: RankRole, in set: PhaseTwins) -> RankPhase {
    let isWhole = max(place.zeroStage, set.place.zeroStage) < .parameters
    return evaluate { state in
      let group = set.shardGroup(state.ledger)
      let own = State(ledger: state.ledger, group: group, base: state.base, texts: [])
      var networks: [ParametersTwin] = role == .score ? set.critic(own).all : []
      if !isWhole {
        networks.append(weights(own, role == .score ? .base : .generator, sizes.networkUnits))
      }
      // Partial sums are left from the last network that was trained. A generator is held here already where it is
      // whole.
      let trained =
        networks.last { $0.role != .base }
        ?? ParametersTwin(
          PlannedLedger(), role: .generator, units: sizes.networkUnits, group: group)
      trained.reduceScatter()
      // Of a block the adapter is loaded last.
      networks.reversed().forEach { $0.leaveRooms() }
      trained.sumOverReplicas()
      // Elements come unit by unit.
      for unit in sizes.networkUnits {
        _ = state.ledger.allocate(unit.elementCount, .generator, .parameters)
      }
      withExtendedLifetime(networks) {}
      return group
    }
  }

  // MARK: Score ranks

  private func scoreTurns(_ handedOver: HandedOver) -> RankPhase {
    let ledger = handedOver.ledger
    let state = State(
      ledger: ledger, group: handedOver.group, base: handedOver.network, texts: handedOver.texts)
    let critic = critic(state)
    let optimizers = critic.all.map { OptimizerTwin($0, hasAverage: false) }
    var (scoreTurns, trainingTurns): ([StageTurn], [StageTurn]) = ([], [])
    func samples() -> [PlannedLedger.Block] {
      (0..<microbatchCount).map { _ in ledger.allocate(latentCount, .common, .activations) }
    }
    func scoreAll(_ samples: [PlannedLedger.Block]) {
      scoreTurns = forEach(microbatchCount, ledger) { microbatch in
        let batch = batch(ledger)
        let gradient = score(samples[microbatch], state, critic)
        ledger.exchange(
          byteCount: 4 * latentCount * latentReceiverCount, messageCount: latentReceiverCount,
          waitCount: 0)
        withExtendedLifetime((batch, gradient)) {}
      }
    }
    func train(_ samples: [PlannedLedger.Block]) {
      let gradients = gradients(
        ledger, of: critic.all, critic.passCount(hasSample: true), turns: &trainingTurns
      ) { microbatch in
        let batch = batch(ledger)
        differentiateCritic(samples[microbatch], state, critic)
        withExtendedLifetime(batch) {}
      }
      optimizers.forEach { $0.step() }
      withExtendedLifetime(gradients) {}
    }

    // Once as it goes, to see the peak; then by parts.
    var shown = samples()
    scoreAll(shown)
    train(shown)
    shown = samples()
    let scores = work(ledger) { scoreAll(shown) }
    let training = work(ledger) { train(shown) }
    withExtendedLifetime((shown, state.base, state.texts, handedOver.all, optimizers)) {}
    return phase(ledger, scores, scoreTurns, training, trainingTurns)
  }

  // MARK: Generator ranks

  private func generatorTurns(_ handedOver: HandedOver) -> RankPhase {
    let ledger = handedOver.ledger
    let generator = handedOver.network
    let optimizer = OptimizerTwin(generator, hasAverage: sizes.keepsGeneratorAverage)
    var (sampleTurns, trainingTurns): ([StageTurn], [StageTurn]) = ([], [])
    func samples(depth: Int) -> [PlannedLedger.Block] {
      var blocks: [PlannedLedger.Block] = []
      sampleTurns = forEach(microbatchCount, ledger) { _ in
        let batch = batch(ledger)
        let silent = TapeTwin(ledger, role: .generator, isRecording: false)
        let x = generate(ledger, generator, depth: depth, isTrainable: false, on: silent)
        withExtendedLifetime(batch) {}
        blocks.append(x.block)
      }
      ledger.exchange(
        byteCount: 4 * latentCount * microbatchCount * latentReceiverCount,
        messageCount: microbatchCount * latentReceiverCount, waitCount: 0)
      return blocks
    }
    func train(depth: Int) {
      let gradients = gradients(ledger, of: [generator], .several, turns: &trainingTurns) { _ in
        let batch = batch(ledger)
        let tape = TapeTwin(ledger, role: .generator)
        let x = generate(ledger, generator, depth: depth, isTrainable: true, on: tape)
        let gradient = ledger.allocate(latentCount, .generator, .activations)
        tape.backward([x])
        withExtendedLifetime((batch, x, gradient)) {}
      }
      optimizer.step()
      withExtendedLifetime(gradients) {}
    }

    let depth = sizes.simulatesRollout ? sizes.generatorStepCount - 1 : 0
    let shownDepth = min(depth, 2)
    var shown = samples(depth: shownDepth)
    shown = []
    train(depth: shownDepth)
    shown = samples(depth: shownDepth)
    let turns = (training: trainingTurns, samples: sampleTurns)
    let rollout = silentSteps(ledger, generator, depth: depth)
    shown = []
    let training = work(ledger) { train(depth: 0) } + rollout
    let sampling = work(ledger) { shown = samples(depth: 0) } + rollout
    withExtendedLifetime((shown, generator, handedOver.texts, handedOver.all, optimizer)) {}
    return phase(ledger, training, turns.training, sampling, turns.samples)
  }

  private func phase(
    _ ledger: PlannedLedger, _ generatorTurn: StepWork, _ generatorTurns: [StageTurn],
    _ everyStep: StepWork, _ everyTurns: [StageTurn]
  ) -> RankPhase {
    var phase = phase(ledger, (1 / Double(sizes.criticRatio)) * generatorTurn + everyStep)
    phase.roleTurns = RoleTurns(
      generatorTurn: .init(
        operationCount: generatorTurn.operationCount, stage: generatorTurns),
      everyStep: .init(operationCount: everyStep.operationCount, stage: everyTurns))
    return phase
  }
}
