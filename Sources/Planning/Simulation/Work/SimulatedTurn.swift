// What a turn of a step runs, as passes of networks and the order of their forward and backward halves.
//
//   teach            W trained
//   generator turn   rollout silently, generator on the tape, fake and real silently, generator's way back
//   critic turn      generator silently (not where the generator's turn left its samples), LoRA trained
//   consistency      teacher and target silently, generator trained
//
// A rollout's depth is its mean, (K − 1)/2 passes, where it starts from own samples. The discriminator's
// passes are left out.

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
  /// How often it runs on average, one after the other.
  package let repeatCount: Double
  /// The pass whose result it starts from; nil: data and noise.
  package let input: Int?
  /// Passes whose results its way back starts from, besides its own.
  package let seeds: [Int]

  package init(
    _ network: Network, _ kind: Kind, isAdapted: Bool = false, repeatCount: Double = 1,
    input: Int? = nil, seeds: [Int] = []
  ) {
    self.network = network
    self.kind = kind
    self.isAdapted = isAdapted
    self.repeatCount = repeatCount
    self.input = input
    self.seeds = seeds
  }
}

/// Passes over all microbatches, then one update.
package struct SimulatedTurn: Equatable, Sendable {
  package var name: String
  package var passes: [SimulatedPass]
  /// Index of the one pass that has a way back.
  package var trainedPass: Int
  /// Whether silent passes stand between the two ways of the trained pass.
  package var needsScores: Bool
  package var hasAverage: Bool

  package init(
    name: String, passes: [SimulatedPass], trainedPass: Int, needsScores: Bool = false,
    hasAverage: Bool = false
  ) {
    self.name = name
    self.passes = passes
    self.trainedPass = trainedPass
    self.needsScores = needsScores
    self.hasAverage = hasAverage
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
    let depth = sizes.simulatesRollout ? Double(sizes.generatorStepCount - 1) / 2 : 0
    return depth > 0 ? [SimulatedPass(.generator, .silent, repeatCount: depth)] : []
  }

  private static func generator(_ sizes: WorkloadSizes) -> SimulatedTurn {
    var passes = rollout(sizes)
    let sample = passes.count
    let scores = Array(sample + 1..<sample + (sizes.isGuided ? 4 : 3))
    passes.append(
      SimulatedPass(.generator, .trained, input: sample > 0 ? 0 : nil, seeds: scores))
    passes.append(SimulatedPass(.base, .silent, isAdapted: true, input: sample))
    for _ in scores.dropFirst() {
      passes.append(
        SimulatedPass(.base, .silent, isAdapted: sizes.pullsRealDiT, input: sample))
    }
    return SimulatedTurn(
      name: "generator turn", passes: passes, trainedPass: sample, needsScores: true,
      hasAverage: sizes.keepsGeneratorAverage)
  }

  private static func critic(_ sizes: WorkloadSizes, hasSamples: Bool) -> SimulatedTurn {
    var passes: [SimulatedPass] = []
    if !hasSamples {
      passes = rollout(sizes)
      passes.append(
        SimulatedPass(.generator, .silent, input: passes.isEmpty ? nil : 0))
    }
    let trained = passes.count
    passes.append(
      SimulatedPass(
        .base, .adapterTrained, isAdapted: true, input: trained > 0 ? trained - 1 : nil))
    return SimulatedTurn(
      name: hasSamples ? "critic turn after the generator's" : "critic turn", passes: passes,
      trainedPass: trained)
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
    var chain = [trainedPass]
    while let last = chain.last, let input = passes[last].input { chain.append(input) }
    return chain + passes[trainedPass].seeds.filter { passes[$0].input == trainedPass }.prefix(1)
  }

  /// The same turn with the trained pass's sample made silently first, so that its two ways may follow each
  /// other microbatch by microbatch in a pipeline: the scores need the sample of the last stage.
  package var withSilentSample: SimulatedTurn {
    guard needsScores else { return self }
    let trained = passes[trainedPass]
    var turn = self
    turn.passes[trainedPass] = SimulatedPass(.generator, .silent, input: trained.input)
    turn.passes.append(
      SimulatedPass(.generator, .trained, input: trained.input, seeds: trained.seeds))
    turn.trainedPass = passes.count
    turn.needsScores = false
    return turn
  }
}

extension SimulatedPass {
  /// Operations of a unit's way forth on one of `tokens` ranks that share tokens and `tp` that share weights.
  package func forwardOperations(_ unit: SimulatedUnit, tokens: Int, tp: Int) -> Double {
    let shared = unit.linear + unit.attention + (isAdapted ? unit.adapter : 0)
    return shared / Double(tokens * tp) + unit.repeated / Double(tp)
  }

  /// Operations of its way back; products with frozen weights have input gradients only.
  package func backwardOperations(
    _ unit: SimulatedUnit, tokens: Int, tp: Int, recomputedShare: Double
  ) -> Double {
    if kind == .silent { return 0 }
    let weights = kind == .trained ? 2.0 : 1
    let shared =
      weights * unit.linear + 2 * unit.attention + (isAdapted ? 2 * unit.adapter : 0)
    let back = shared / Double(tokens * tp) + weights * unit.repeated / Double(tp)
    let again = unit.isBlock ? forwardOperations(unit, tokens: tokens, tp: tp) : 0
    return back + recomputedShare * again
  }
}
