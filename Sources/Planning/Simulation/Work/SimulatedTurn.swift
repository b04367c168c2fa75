// What a turn of a step runs, as passes of networks and the order of their forward and backward halves.
//
//   teach            W trained
//   generator turn   rollout silently, generator on the tape, fake and real silently, generator's way back
//   critic turn      generator silently (not where the generator's turn left its samples), LoRA trained
//   consistency      teacher and target silently, generator trained
//
// With split roles (`RoleTurns`), on ranks of their own:
//   training         rollout silently, generator on the tape; its way back waits for the scores
//   samples          rollout and generator silently, for the next step
//   scores           fake and real silently
//   critic turn      LoRA trained, on samples that have come
//
// A rollout's depth is its mean, (K − 1)/2 passes, where it starts from own samples.

/// One network run once.
package struct SimulatedPass: Equatable, Sendable {
  /// Whose weights.
  package enum Network: Equatable, Sendable { case base, generator }

  package enum Kind: Equatable, Sendable {
    /// No gradients.
    case silent
    /// Gradients of all weights.
    case trained
    /// Gradients of the adapter alone: no products for W's gradients.
    case adapterTrained
  }

  package let network: Network
  package let kind: Kind
  /// Whether the adapter's branch runs.
  package let isAdapted: Bool
  /// Whether the adapter is loaded with the weights: also where it runs with weight 0.
  package let loadsAdapter: Bool
  /// How often it runs on average, one after the other.
  package let repeatCount: Double
  /// K of a rollout, of which up to K − 1 steps run; nil: it is none.
  package let stepCount: Int?
  /// The pass whose result it starts from; nil: data and noise.
  package let input: Int?
  /// Passes whose results its way back starts from, besides its own.
  package let seeds: [Int]

  package init(
    _ network: Network, _ kind: Kind, isAdapted: Bool = false, loadsAdapter: Bool = false,
    input: Int? = nil, seeds: [Int] = []
  ) {
    self.network = network
    self.kind = kind
    self.isAdapted = isAdapted
    self.loadsAdapter = isAdapted || loadsAdapter
    repeatCount = 1
    stepCount = nil
    self.input = input
    self.seeds = seeds
  }

  /// Silent steps of a generator of `stepCount`, (K − 1)/2 on average.
  package init(rolloutOf stepCount: Int) {
    network = .generator
    kind = .silent
    (isAdapted, loadsAdapter) = (false, false)
    repeatCount = Double(stepCount - 1) / 2
    self.stepCount = stepCount
    input = nil
    seeds = []
  }
}

/// Passes over all microbatches, then one update.
package struct SimulatedTurn: Equatable, Sendable {
  package var name: String
  package var passes: [SimulatedPass]
  /// Index of the one pass that has a way back; nil: none, and nothing is updated.
  package var trainedPass: Int?
  package var hasAverage: Bool
  /// How often what lies outside of the blocks of a network that changes is gathered, on average: once after each of its
  /// updates, in the first turn that uses it.
  package var endsLoadCount: Double
  /// Whether the turn before ended with a way back of W, so that its first blocks are in memory, not the last ones.
  package var followsWayBack: Bool

  package init(
    name: String, passes: [SimulatedPass], trainedPass: Int?, hasAverage: Bool = false,
    endsLoadCount: Double = 1, followsWayBack: Bool = true
  ) {
    self.name = name
    self.passes = passes
    self.trainedPass = trainedPass
    self.hasAverage = hasAverage
    self.endsLoadCount = endsLoadCount
    self.followsWayBack = followsWayBack
  }

  /// The pass that has a way back.
  package var trained: SimulatedPass? { trainedPass.map { passes[$0] } }

  /// Of a microbatch, as the worker says it of its turns: what has one is neither sampled nor scored.
  package var passCount: PassCount {
    passes.count == 1 && trained?.network == .base ? .one : .several
  }

  package static let teach = SimulatedTurn(
    name: "teach", passes: [SimulatedPass(.base, .trained)], trainedPass: 0, hasAverage: true)

  /// Turns of a step of the phase, each with the share of steps that has it; empty without one.
  package static func distill(
    _ sizes: WorkloadSizes
  ) -> [(turn: SimulatedTurn, share: Double)] {
    switch sizes.method {
    case .none: []
    case .consistency: [(consistency(sizes), 1)]
    case .distributionMatching:
      [
        (generator(sizes), 1 / Double(sizes.criticRatio)),
        (critic(sizes, hasSamples: true), 1 / Double(sizes.criticRatio)),
        (critic(sizes, hasSamples: false), 1 - 1 / Double(sizes.criticRatio)),
      ].filter { $0.share > 0 }
    }
  }

  /// Passes before the one that makes the sample.
  private static func rollout(_ sizes: WorkloadSizes) -> [SimulatedPass] {
    sizes.simulatesRollout && sizes.generatorStepCount > 1
      ? [SimulatedPass(rolloutOf: sizes.generatorStepCount)] : []
  }

  /// The fake network, then the real one.
  private static func scores(_ sizes: WorkloadSizes, of sample: Int?) -> [SimulatedPass] {
    [SimulatedPass(.base, .silent, isAdapted: true, input: sample)]
      + (0..<(sizes.isGuided ? 2 : 1)).map { _ in
        SimulatedPass(
          .base, .silent, isAdapted: sizes.pullsRealDiT, loadsAdapter: true, input: sample)
      }
  }

  private static func generator(_ sizes: WorkloadSizes) -> SimulatedTurn {
    var passes = rollout(sizes)
    let sample = passes.count
    let scores = scores(sizes, of: sample)
    passes.append(
      SimulatedPass(
        .generator, .trained, input: sample > 0 ? 0 : nil,
        seeds: scores.indices.map { sample + 1 + $0 }))
    return SimulatedTurn(
      name: "generator turn", passes: passes + scores, trainedPass: sample,
      hasAverage: sizes.keepsGeneratorAverage, endsLoadCount: sizes.criticRatio > 1 ? 0 : 1)
  }

  fileprivate static func critic(_ sizes: WorkloadSizes, hasSamples: Bool) -> SimulatedTurn {
    var passes = hasSamples ? [] : samples(sizes).passes
    let trained = passes.count
    passes.append(
      SimulatedPass(
        .base, .adapterTrained, isAdapted: true, input: trained > 0 ? trained - 1 : nil))
    return SimulatedTurn(
      name: hasSamples ? "critic turn after the generator's" : "critic turn", passes: passes,
      trainedPass: trained, endsLoadCount: 1 / Double(max(sizes.criticRatio - 1, 1)),
      followsWayBack: !hasSamples)
  }

  private static func consistency(_ sizes: WorkloadSizes) -> SimulatedTurn {
    var passes = [SimulatedPass(.base, .silent)]
    if sizes.isGuided { passes.append(SimulatedPass(.base, .silent)) }
    let target = passes.count
    passes.append(SimulatedPass(.generator, .silent, input: target - 1))
    passes.append(SimulatedPass(.generator, .trained, seeds: [target]))
    return SimulatedTurn(
      name: "consistency turn", passes: passes, trainedPass: target + 1,
      hasAverage: sizes.keepsGeneratorAverage)
  }

  /// Passes that wait for each other, up to the way back: the trained one, what it starts from, and one of those
  /// whose results its way back needs.
  package var chain: [Int] {
    var chain = [trainedPass ?? passes.count - 1]
    while let last = chain.last, let input = passes[last].input { chain.append(input) }
    guard let trainedPass, let trained else { return chain }
    return chain + trained.seeds.filter { passes[$0].input == trainedPass }.prefix(1)
  }

  /// Whether silent passes stand between the two ways of the trained pass.
  package var needsScores: Bool {
    trained?.seeds.contains { passes[$0].input == trainedPass } ?? false
  }

  /// The same turn with the trained pass's sample made silently first, so that its two ways may follow each
  /// other microbatch by microbatch in a pipeline: the scores need the sample of the last stage.
  package var withSilentSample: SimulatedTurn {
    guard needsScores, let trainedPass, let trained else { return self }
    var turn = self
    turn.passes[trainedPass] = SimulatedPass(.generator, .silent, input: trained.input)
    turn.passes.append(
      SimulatedPass(.generator, .trained, input: trained.input, seeds: trained.seeds))
    turn.trainedPass = passes.count
    return turn
  }
}

// MARK: Split roles

extension SimulatedTurn {
  /// g of `RoleTimeline`: what generator ranks do in a generator turn.
  package static func training(_ sizes: WorkloadSizes) -> SimulatedTurn {
    let rollout = rollout(sizes)
    return SimulatedTurn(
      name: "generator's training",
      passes: rollout + [
        SimulatedPass(.generator, .trained, input: rollout.isEmpty ? nil : 0)
      ], trainedPass: rollout.count, hasAverage: sizes.keepsGeneratorAverage, endsLoadCount: 0)
  }

  /// s: the samples of a step.
  package static func samples(_ sizes: WorkloadSizes) -> SimulatedTurn {
    let rollout = rollout(sizes)
    return SimulatedTurn(
      name: "samples",
      passes: rollout + [SimulatedPass(.generator, .silent, input: rollout.isEmpty ? nil : 0)],
      trainedPass: nil, endsLoadCount: 1 / Double(sizes.criticRatio))
  }

  /// b: what score ranks do in a generator turn.
  package static func scores(_ sizes: WorkloadSizes) -> SimulatedTurn {
    SimulatedTurn(name: "scores", passes: scores(sizes, of: nil), trainedPass: nil)
  }

  /// f: what they do in every step.
  package static func criticTurn(_ sizes: WorkloadSizes) -> SimulatedTurn {
    var turn = critic(sizes, hasSamples: true)
    turn.followsWayBack = sizes.criticRatio > 1
    return turn
  }
}

extension SimulatedPass {
  /// Operations of a unit's way forth on one of `tokens` ranks that share tokens and `tp` that share weights. Outside
  /// of blocks no weights are cut, but tokens are, over these ranks too.
  package func forwardOperations(_ unit: SimulatedUnit, tokens: Int, tp: Int) -> Double {
    let shared = unit.linear + unit.attention + (isAdapted ? unit.adapter : 0)
    return shared / Double(tokens * tp) + unit.repeated / Double(unit.isBlock ? tp : 1)
  }

  /// Operations of its way back; products with frozen weights have input gradients only.
  package func backwardOperations(
    _ unit: SimulatedUnit, tokens: Int, tp: Int, recomputedShare: Double
  ) -> Double {
    if kind == .silent { return 0 }
    let weights = kind == .trained ? 2.0 : 1
    let shared =
      weights * unit.linear + 2 * unit.attention + (isAdapted ? 2 * unit.adapter : 0)
    let back =
      shared / Double(tokens * tp)
      + weights * unit.repeated / Double(unit.isBlock ? tp : 1)
    let again = unit.isBlock ? forwardOperations(unit, tokens: tokens, tp: tp) : 0
    return back + recomputedShare * again
  }
}
