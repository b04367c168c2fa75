// Distill: the weak-to-strong step over three roles (specification, section 2), and its baselines.
//
// A step is a critic turn; every criticRatio-th step has a generator turn before it, whose sample the
// critic turn uses again. Each turn differentiates one role only: the other roles' parameters are
// frozen on its tapes, because gradients are bound to a role's set inside `MicrobatchSum` alone.
//
//   generator turn   x = y − τ_k v_θ(y, τ_k)          rollout, k shared or spread              (9)
//                    x_t, then x_F and x_R silently   fake at alphaStrong, real at alphaWeak  (12)(13)
//                    g = (x_F − x_R) / mean|x − x_R|  + ground truth + adversarial            (15)(18)(20)
//   critic turn      ‖F_φ(x_t, t) − (ε − x)‖²         + discriminator                         (10)(20)

import Autodiff
import Basics
import DenseKernels
import Diffusion
import Exchange
import Foundation
import Models
import Planning
import Tensors

package struct DistillPhase {
  package static let name = "distill"

  private let context: RunContext
  private let networks: Networks
  private let batches: TrainingBatches
  private let generator: ConditionedTransformer<Float>
  private let adapter: AdapterSet<Float>
  private let head: DiscriminatorHead<Float>?
  private let rollout: Rollout
  private let scoreTimes: TimeDistribution
  package let generatorOptimizer: ShardedOptimizer
  package let adapterOptimizer: ShardedOptimizer
  package let headOptimizer: ShardedOptimizer?

  private var options: RunConfiguration.Distill { context.configuration.distill }
  private var recomputedShare: Double { context.configuration.recomputedShare }

  /// Adds generator, adapter and, if it is used, the discriminator's head to the networks.
  package init(context: RunContext, networks: Networks, batches: TrainingBatches) {
    self.context = context
    self.networks = networks
    self.batches = batches
    let options = context.configuration.distill
    generator = networks.addGenerator()
    context.weights(generator.parameters).copy(from: context.weights(networks.base.parameters))
    adapter = networks.addAdapter(
      rank: options.loraRank, alpha: options.loraAlpha, seed: context.seed)
    head =
      options.lambdaAdversarial > 0
      ? networks.addHead(width: options.discriminatorWidth, seed: context.seed) : nil
    rollout = Rollout(
      schedule: SamplingSchedule(stepCount: options.generatorSteps, shift: options.flowShift),
      source: options.rollout)
    scoreTimes = .uniform(
      shift: options.scoreShift, bounds: options.scoreMinimum...options.scoreMaximum)
    generatorOptimizer = context.distillOptimizer(generator.parameters, isAveraged: true)
    adapterOptimizer = context.distillOptimizer(adapter.parameters)
    headOptimizer = head.map { context.distillOptimizer($0.parameters) }
  }

  /// Trains from `firstStep` on; afterwards the generator is its average.
  ///
  /// - Parameter save: called after each step with the number of steps done and whether to stop.
  /// - Collective: over the context's transport.
  package func run(
    from firstStep: Int, save: (_ stepsDone: Int, _ mustStop: Bool) throws -> Void
  ) throws {
    let meter = StepMeter(
      context: context, phase: Self.name, stepCount: options.steps,
      firstGlobalStep: context.configuration.teach.steps)
    context.reporter.begin(phase: Self.name, step: firstStep)
    for step in firstStep..<max(options.steps, firstStep) {
      meter.begin()
      var generated: [Int: Tensor<Float>] = [:]
      var metrics: [(name: String, value: MetricsValue)] = []
      if step % options.criticRatio == 0 {
        metrics += try generatorTurn(step: step, generated: &generated)
      }
      let (losses, criticMetrics) = try criticTurn(step: step, generated: generated)
      let agreement = try context.agreeOnStep(losses: losses)
      meter.record(
        step: step, agreement: agreement,
        further: metrics + criticMetrics)
      try save(step + 1, agreement.shouldStop)
    }
    try generatorOptimizer.adoptAverage()
    try meter.finish()
    context.reporter.finishPhase()
  }

  // MARK: Generator turn

  /// What a microbatch of a generator turn leaves.
  private struct GeneratorResult {
    let sample: Tensor<Float>
    let loss: Double
    let distance: Double
    let nonFiniteCount: Int
  }

  private func generatorTurn(
    step: Int, generated: inout [Int: Tensor<Float>]
  ) throws -> [(name: String, value: MetricsValue)] {
    let (gradients, results) = context.gradients(
      of: [GradientTarget(generatorOptimizer.weights)], .several
    ) { microbatch in
      let batch = batches.batch(step: step, microbatch: microbatch, in: context.arena)
      let tape = context.tape(.generator)
      let x = generate(batch, step: step, microbatch: microbatch, on: tape)
      return differentiateGenerator(x, batch: batch, step: step, on: tape)
    }
    generated = Dictionary(
      uniqueKeysWithValues: zip(context.microbatches, results.map(\.sample)))
    let outcome = try generatorOptimizer.step(
      gradientSum: gradients[0], microbatchCount: context.configuration.batch.microbatches,
      learningRate: options.generatorRate(step: step))
    try context.note(outcome, of: "generator", in: Self.name, step: step)
    let agreement = try context.agreeOnStep(
      losses: results.map(\.loss),
      readings: [
        "distance": results.map(\.distance),
        "nonfinite": results.map { Double($0.nonFiniteCount) },
      ])
    return [
      ("generator_loss", .number(agreement.meanLoss)),
      ("matching_distance", .number(agreement.mean(of: "distance"))),
      ("matching_nonfinite", .number(agreement.sum(of: "nonfinite"))),
    ] + outcome.metrics(prefix: "generator_")
  }

  private func differentiateGenerator(
    _ x: Value<Float>, batch: TrainingBatch, step: Int, on tape: Tape<Float>
  ) -> GeneratorResult {
    let times = scoreTimes(.scoreTime, batch, step)
    let fake = BoundDenoiser(
      networks.base, conditions: batch.conditions,
      adapter: Adapter(adapter, weight: options.alphaStrong), sequence: context.sequence)
    let alphaWeak = options.method == .dmd2 ? 0 : options.alphaWeak
    let weak = Adapter(adapter, weight: alphaWeak)
    let real = GuidedDenoiser<Float>(
      conditional: BoundDenoiser(
        networks.base, conditions: batch.conditions, adapter: weak, sequence: context.sequence),
      unconditional: BoundDenoiser(
        networks.base, conditions: batch.conditions.map { _ in Condition() }, adapter: weak,
        sequence: context.sequence),
      scale: options.guidance)
    let matching = DistributionMatching()
    let result = matching.evaluate(
      generated: x, noise: noise(.scoreNoise, batch, step: step), times: times, fake: fake,
      real: real, on: tape)
    var terms: [(weight: Double, term: ObjectiveTerm<Float>)] = [(1, result.term)]
    if options.lambdaGroundTruth > 0 {
      let term =
        switch options.groundTruthTerm {
        case .matched:
          matching.groundTruth(
            generated: x, fakeEstimate: result.fakeEstimate, truth: batch.latents, on: tape)
        case .plain:
          GroundTruthRegression().evaluate(generated: x, truth: batch.latents, on: tape)
        }
      terms.append((options.lambdaGroundTruth, term))
    }
    if let head {
      let logits = discriminate(x, batch: batch, step: step, head: head, on: tape)
      terms.append(
        (options.lambdaAdversarial, AdversarialObjective().generator(logits: logits, on: tape)))
    }
    ObjectiveTerm.backward(terms, on: tape)
    return GeneratorResult(
      sample: x.tensor, loss: terms.reduce(0) { $0 + $1.weight * $1.term.loss },
      distance: result.meanDistance, nonFiniteCount: result.nonFiniteCount)
  }

  // MARK: Critic turn

  private func criticTurn(
    step: Int, generated: [Int: Tensor<Float>]
  ) throws -> (losses: [Double], metrics: [(name: String, value: MetricsValue)]) {
    let targets = [adapterOptimizer, headOptimizer].compactMap(\.self)
      .map { GradientTarget($0.weights) }
    let (gradients, losses) = context.gradients(
      of: targets, generated.isEmpty ? .several : .one
    ) { microbatch in
      let batch = batches.batch(step: step, microbatch: microbatch, in: context.arena)
      let silent = context.tape(.generator, isRecording: false)
      let x =
        generated[microbatch]
        ?? generate(batch, step: step, microbatch: microbatch, on: silent).tensor
      return differentiateCritic(x, batch: batch, step: step)
    }
    let microbatchCount = context.configuration.batch.microbatches
    let outcome = try adapterOptimizer.step(
      gradientSum: gradients[0], microbatchCount: microbatchCount,
      learningRate: options.criticLearningRate)
    let headOutcome = try headOptimizer?.step(
      gradientSum: gradients[1], microbatchCount: microbatchCount,
      learningRate: options.criticLearningRate)
    try context.note(outcome, of: "fake DiT", in: Self.name, step: step)
    if let headOutcome {
      try context.note(headOutcome, of: "discriminator", in: Self.name, step: step)
    }
    return (
      losses,
      outcome.metrics(prefix: "critic_") + (headOutcome?.metrics(prefix: "discriminator_") ?? [])
    )
  }

  private func differentiateCritic(
    _ x: Tensor<Float>, batch: TrainingBatch, step: Int
  ) -> Double {
    let times = scoreTimes(.criticTime, batch, step)
    let noise = noise(.criticNoise, batch, step: step)
    let tape = context.tape(.fake)
    let noisy = FlowMatching.noised(
      x, noise: noise, times: times, in: context.arena, booking: Booking(.fake, .activations))
    let fake = BoundDenoiser(
      networks.base, conditions: batch.conditions,
      adapter: Adapter(adapter, weight: options.alphaStrong), recomputedShare: recomputedShare,
      sequence: context.sequence)
    let velocity = fake.velocity(of: Value(constant: noisy), times: times, on: tape)
    let flow = FlowMatchingObjective().evaluate(
      prediction: velocity, clean: x, noise: noise, on: tape)
    var terms: [(weight: Double, term: ObjectiveTerm<Float>)] = [(1, flow)]
    if let head {
      let fakeLogits = discriminate(
        Value(constant: x), batch: batch, step: step, head: head, on: tape)
      let realLogits = discriminate(
        Value(constant: batch.latents), batch: batch, step: step, head: head, on: tape)
      terms += AdversarialObjective().discriminator(
        fakeLogits: fakeLogits, realLogits: realLogits, on: tape
      ).map { (options.lambdaDiscriminator, $0) }
    }
    ObjectiveTerm.backward(terms, on: tape)
    return terms.reduce(0) { $0 + $1.weight * $1.term.loss }
  }

  // MARK: Parts of both turns

  /// k − 1: the step of the student's schedule that a microbatch trains.
  ///
  /// Shared depths let all ranks run the same passes (specification 2, note ii). Spread ones put all
  /// K steps into every update, which then waits for none of them.
  private func depth(step: Int, microbatch: Int) -> Int {
    let draw = RandomStream(seed: context.seed, purpose: .rolloutDepth, step: step)
      .integer(below: options.generatorSteps, at: 0)
    switch options.depths {
    case .shared: return draw
    case .spread: return (draw + microbatch) % options.generatorSteps
    }
  }

  private func generate(
    _ batch: TrainingBatch, step: Int, microbatch: Int, on tape: Tape<Float>
  ) -> Value<Float> {
    let depth = depth(step: step, microbatch: microbatch)
    if options.rollout == .simulate {
      func deepest(_ microbatches: [Int]) -> Int {
        microbatches.map { self.depth(step: step, microbatch: $0) }.max() ?? depth
      }
      // Where a pass loads blocks from all ranks, those with fewer silent passes take part in the rest; in a
      // pipeline they wait for the rest of those in flight.
      let loaded = deepest(context.peers(of: microbatch))
      for _ in loaded..<deepest(context.companions(of: microbatch)) { context.skipPass() }
      for _ in depth..<loaded { context.attendPass(of: generator.parameters) }
    }
    return rollout.generate(
      depth: depth,
      noise: noise(.rolloutNoise, batch, step: step), truth: batch.latents,
      generator: BoundDenoiser(
        generator, conditions: batch.conditions,
        recomputedShare: tape.isRecording ? recomputedShare : 0,
        sequence: context.sequence),
      on: tape
    ) { simulatedStep in
      // Each simulated step has a stream of its own: K of them per training step.
      noise(.rolloutRenoise, batch, step: step * options.generatorSteps + simulatedStep)
    }
  }

  /// D(x) = head(features of W at a noised x). (19)
  private func discriminate(
    _ x: Value<Float>, batch: TrainingBatch, step: Int, head: DiscriminatorHead<Float>,
    on tape: Tape<Float>
  ) -> Value<Float> {
    let times = context.streams(.adversarialTime, step: step, counters: batch.counters)
      .map { $0.uniform(at: 0) }
    let noise = Value(constant: noise(.adversarialNoise, batch, step: step))
    let noisy = tape.combineSamples(times.map { 1 - $0 }, x, times, noise)
    let features = networks.base.features(
      tape: tape, noisy: noisy, times: times, conditions: batch.conditions,
      recomputedShare: recomputedShare)
    return head.forward(tape: tape, features: features)
  }

  private func noise(
    _ purpose: RandomPurpose, _ batch: TrainingBatch, step: Int
  ) -> Tensor<Float> {
    normalTensor(
      context.streams(purpose, step: step, counters: batch.counters),
      sampleShape: Array(batch.latents.shape.dropFirst()), in: context.arena,
      booking: Booking(.common, .activations))
  }

  private func scoreTimes(
    _ purpose: RandomPurpose, _ batch: TrainingBatch, _ step: Int
  ) -> [Double] {
    context.streams(purpose, step: step, counters: batch.counters)
      .map(scoreTimes.time(from:))
  }
}

extension RunContext {
  /// The optimizer of a network that the distill phase trains.
  func distillOptimizer(
    _ parameters: ParameterSet<Float>, isAveraged: Bool = false
  ) -> ShardedOptimizer {
    let options = configuration.distill
    return ShardedOptimizer(
      weights(parameters),
      configuration: .init(
        beta1: options.beta1, beta2: options.beta2, weightDecay: options.weightDecay,
        clip: options.clip, ema: isAveraged && options.ema > 0 ? options.ema : nil))
  }
}

extension RunConfiguration.Distill {
  /// The generator's learning rate at a step of the phase.
  package func generatorRate(step: Int) -> Double {
    switch schedule {
    case .constant: generatorLearningRate
    case .cosine:
      generatorLearningRate * 0.5 * (1 + cos(Double.pi * Double(step) / Double(max(steps, 1))))
    }
  }
}
