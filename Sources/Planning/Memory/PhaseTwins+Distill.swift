// Distribution matching on a rank that has all roles: the twin of GeneratorRole, ScoreRole and ColocatedTurns. What
// ranks of one role do with the same parts: PhaseTwins+Roles.swift.

import MeshLayout

extension PhaseTwins {
  /// What learns to score, on W.
  struct Critic {
    let adapter: ParametersTwin
    let head: ParametersTwin?

    var all: [ParametersTwin] { [adapter] + (head.map { [$0] } ?? []) }

    /// Of a microbatch of its turn: features for the head are passes of their own.
    func passCount(hasSample: Bool) -> PassCount { hasSample && head == nil ? .one : .several }
  }

  func critic(_ state: State) -> Critic {
    let adapter = weights(state, .fake, sizes.adapterUnits)
    adapter.initialize()
    return Critic(
      adapter: adapter,
      head: sizes.headUnits.isEmpty ? nil : weights(state, .fake, sizes.headUnits))
  }

  func distributionMatching() -> RankPhase {
    // Where it is taught before, it has been drawn in that phase.
    let state = state(draws: stage == nil && sizes.teachStepCount == 0)
    let ledger = state.ledger
    let generator = weights(state, .generator, sizes.networkUnits)
    let generatorOptimizer = OptimizerTwin(generator, hasAverage: sizes.keepsGeneratorAverage)
    let critic = critic(state)
    let criticOptimizers = critic.all.map { OptimizerTwin($0, hasAverage: false) }

    let depth = sizes.simulatesRollout ? sizes.generatorStepCount - 1 : 0
    var (generatorTurns, criticTurns): ([StageTurn], [StageTurn]) = ([], [])
    func generatorTurn(depth: Int) -> [Int: PlannedLedger.Block] {
      var samples: [Int: PlannedLedger.Block] = [:]
      let gradients = gradients(
        ledger, of: [generator], .several, turns: &generatorTurns
      ) { microbatch in
        let batch = batch(ledger)
        let tape = TapeTwin(ledger, role: .generator)
        let x = generate(ledger, generator, depth: depth, isTrainable: true, on: tape)
        samples[microbatch] = x.block
        let gradient = score(x.block, state, critic)
        tape.backward([x])
        withExtendedLifetime((batch, x, gradient)) {}
      }
      generatorOptimizer.step()
      withExtendedLifetime(gradients) {}
      return samples
    }
    func criticTurn(_ generated: [Int: PlannedLedger.Block], depth: Int) {
      let gradients = gradients(
        ledger, of: critic.all, critic.passCount(hasSample: !generated.isEmpty),
        turns: &criticTurns
      ) { microbatch in
        let batch = batch(ledger)
        let silent = TapeTwin(ledger, role: .generator, isRecording: false)
        let x =
          generated[microbatch]
          ?? generate(ledger, generator, depth: depth, isTrainable: false, on: silent).block
        differentiateCritic(x, state, critic)
        withExtendedLifetime((batch, x)) {}
      }
      criticOptimizers.forEach { $0.step() }
      withExtendedLifetime((gradients, generated)) {}
    }

    // Once as it goes, to see the peak; more than two silent steps add nothing to it.
    let shownDepth = min(depth, 2)
    criticTurn(generatorTurn(depth: shownDepth), depth: shownDepth)
    if sizes.criticRatio > 1 { criticTurn([:], depth: shownDepth) }
    criticTurn(generatorTurn(depth: shownDepth), depth: shownDepth)
    let turns = [generatorTurns, criticTurns]

    // Then by parts, to count operations: the depth of a rollout is 0 to K − 1, all alike often. Samples last to the end
    // of the critic turn that uses them again.
    let rollout = silentSteps(ledger, generator, depth: depth)
    var samples: [Int: PlannedLedger.Block] = [:]
    let generatorWork = work(ledger) { samples = generatorTurn(depth: 0) } + rollout
    let pairedWork = work(ledger) { criticTurn(samples, depth: 0) }
    samples = [:]
    let aloneWork = work(ledger) { criticTurn([:], depth: 0) } + rollout
    let ratio = Double(sizes.criticRatio)
    withExtendedLifetime((state.base, state.texts, generatorOptimizer, criticOptimizers)) {}
    return phase(
      ledger, (1 / ratio) * (generatorWork + pairedWork + (ratio - 1) * aloneWork), turns: turns)
  }

  /// What the silent steps of this rank's rollouts of a step take, on average over depths.
  func silentSteps(
    _ ledger: PlannedLedger, _ generator: ParametersTwin, depth: Int
  ) -> StepWork {
    var silentPass = work(ledger) {
      let network = NetworkTwin(sizes: network, parameters: generator, part: part, stage: stage)
      let tape = TapeTwin(ledger, role: .generator, isRecording: false)
      let noisy = ValueTwin(constant: tape.result(latentCount))
      _ = network.velocity(tape, noisy: noisy, sampleCount: sampleCount)
    }
    (silentPass.updateByteCount, silentPass.updateMessageCount) = (0, 0)
    (silentPass.besideUpdateByteCount, silentPass.besideUpdateMessageCount) = (0, 0)
    return Double(microbatchCount)
      * (Double(depth) / 2 * silentPass + loads(of: generator, ledger))
  }

  /// What the silent passes of a microbatch's rollout load: as many times as the deepest rollout of the
  /// microbatches that are computed at the same time has steps.
  private func loads(of generator: ParametersTwin, _ ledger: PlannedLedger) -> StepWork {
    guard sizes.simulatesRollout, generator.stage == .parameters else {
      return StepWork()
    }
    let stepCount = sizes.generatorStepCount
    let peerCount = sizes.spreadsDepths ? min(roundCount, stepCount) : 1
    generator.attendPass()
    return WorkloadSizes.deepestRollout(stepCount: stepCount, peerCount: peerCount)
      * work(ledger) { generator.attendPass() }
  }

  /// The rollout: silent steps down to the depth, then one on the tape.
  func generate(
    _ ledger: PlannedLedger, _ parameters: ParametersTwin, depth: Int, isTrainable: Bool,
    on tape: TapeTwin
  ) -> ValueTwin {
    let generator = NetworkTwin(
      sizes: network, parameters: parameters, isTrainable: isTrainable, part: part,
      stage: stage)
    let noise = ledger.allocate(latentCount, .common, .activations)
    let start =
      sizes.simulatesRollout
      ? sample(ledger, generator, from: noise, stepCount: depth, role: tape.role)
      : tape.result(latentCount)
    let velocity = generator.velocity(
      tape, noisy: ValueTwin(constant: start), sampleCount: sampleCount,
      recomputedShare: tape.isRecording ? sizes.recomputedShare : 0)
    let x = tape.combine(ValueTwin(constant: start), velocity)
    withExtendedLifetime((noise, start, velocity)) {}
    return x
  }

  /// The gradient of the generator's loss at a sample.
  func score(
    _ sample: PlannedLedger.Block, _ state: State, _ critic: Critic
  ) -> PlannedLedger.Block? {
    let ledger = state.ledger
    let tape = TapeTwin(ledger, role: .base)
    let x = tape.input(sample)
    let pull = pull(ledger, state, critic, tape)
    var terms = [x]
    var seeds = [pull]
    if sizes.hasGroundTruthTerm {
      terms.append(x)
      seeds.append(tape.result(latentCount))
    }
    if critic.head != nil {
      terms.append(discriminate(x, state, isTrainable: false, on: tape))
      seeds.append(tape.result(sampleCount))
    }
    let scaled = seeds.dropFirst().map { tape.scratch($0.count) }
    tape.backward(terms)
    withExtendedLifetime((terms, seeds, scaled)) {}
    return tape.gradient(of: x)
  }

  /// Both score passes, silent; returns the seed.
  private func pull(
    _ ledger: PlannedLedger, _ state: State, _ critic: Critic, _ tape: TapeTwin
  ) -> PlannedLedger.Block {
    let update = UpdateTwin(rank: sizes.adapterRank, isTrainable: false)
    let fake = NetworkTwin(
      sizes: network, parameters: state.base, adapter: update, adapterParameters: critic.adapter,
      part: part, stage: stage)
    // At weight 0 the adapter is not run, but its blocks are entered all the same.
    let real = NetworkTwin(
      sizes: network, parameters: state.base, adapter: sizes.pullsRealDiT ? update : nil,
      adapterParameters: critic.adapter, part: part, stage: stage)
    let noise = ledger.allocate(latentCount, .common, .activations)
    let silent = TapeTwin(ledger, role: .base, isRecording: false)
    let noisy = silent.result(latentCount)
    let input = ValueTwin(constant: noisy)
    _ = fake.velocity(silent, noisy: input, sampleCount: sampleCount)
    _ = guided(real, silent, input)
    withExtendedLifetime((noisy, input)) {}
    let pull = tape.result(latentCount)
    withExtendedLifetime(noise) {}
    return pull
  }

  func differentiateCritic(
    _ x: PlannedLedger.Block, _ state: State, _ critic: Critic
  ) {
    let tape = TapeTwin(state.ledger, role: .fake)
    let (velocity, seed) = flow(state, critic, on: tape)
    var terms = [velocity]
    var seeds = [seed]
    if let head = critic.head {
      terms += inUse(head, on: tape) {
        (0..<2).map { _ in
          discriminate(ValueTwin(constant: x), state, isTrainable: true, on: tape)
        }
      }
      seeds += (0..<2).map { _ in tape.result(sampleCount) }
    }
    let scaled = seeds.dropFirst().map { tape.scratch($0.count) }
    tape.backward(terms)
    withExtendedLifetime((x, velocity, terms, seeds, scaled)) {}
  }

  /// The velocity of the fake DiT and where its gradient is.
  private func flow(
    _ state: State, _ critic: Critic, on tape: TapeTwin
  ) -> (velocity: ValueTwin, seed: PlannedLedger.Block) {
    let noise = state.ledger.allocate(latentCount, .common, .activations)
    let noisy = tape.result(latentCount)
    let fake = NetworkTwin(
      sizes: network, parameters: state.base,
      adapter: UpdateTwin(rank: sizes.adapterRank, isTrainable: true),
      adapterParameters: critic.adapter, part: part, stage: stage)
    let velocity = fake.velocity(
      tape, noisy: ValueTwin(constant: noisy), sampleCount: sampleCount,
      recomputedShare: sizes.recomputedShare)
    let seed = tape.result(latentCount)
    withExtendedLifetime((noise, noisy)) {}
    return (velocity, seed)
  }

  /// As `DiscriminatorHead.inUse`.
  private func inUse<Result>(
    _ head: ParametersTwin, on tape: TapeTwin, _ body: () -> Result
  ) -> Result {
    guard stage?.isFirst ?? true else { return body() }
    return ParametersTwin.inBlock(
      nil, of: [head], on: tape, isDifferentiated: true, body)
  }

  /// The head on features of W at a noised x.
  private func discriminate(
    _ x: ValueTwin, _ state: State, isTrainable: Bool, on tape: TapeTwin
  ) -> ValueTwin {
    let noisy = noised(x, state, on: tape)
    let features = NetworkTwin(sizes: network, parameters: state.base, part: part, stage: stage)
      .features(
        tape, noisy: noisy, sampleCount: sampleCount, recomputedShare: sizes.recomputedShare)
    let width = network.width
    let normalized = tape.layerNorm(features, width: width, isTrainable: isTrainable)
    let hidden = tape.apply(
      tape.linear(normalized, from: width, to: sizes.discriminatorWidth, isTrainable: isTrainable))
    let logits = tape.linear(
      hidden, from: sizes.discriminatorWidth, to: 1, isTrainable: isTrainable)
    withExtendedLifetime((noisy, features, normalized)) {}
    return logits
  }

  private func noised(_ x: ValueTwin, _ state: State, on tape: TapeTwin) -> ValueTwin {
    let noise = state.ledger.allocate(latentCount, .common, .activations)
    let noisy = tape.combine(x, ValueTwin(constant: noise))
    withExtendedLifetime(noise) {}
    return noisy
  }
}
