// Real and fake: one W with the fake's adapter at two weights, and the discriminator's head on features of W.
// It tells the generator's gradient at a sample, and learns what samples look like.
//
//   score    x_t, then x_F and x_R silently   fake at alphaStrong, real at alphaWeak  (12)(13)
//            g = (x_F − x_R) / mean|x − x_R|  + ground truth + adversarial            (15)(18)(20)
//   train    ‖F_φ(x_t, t) − (ε − x)‖²         + discriminator                         (10)(20)

import Autodiff
import Basics
import DenseKernels
import Diffusion
import Exchange
import Models
import Planning
import Tensors

package struct ScoreRole {
  private let networks: Networks
  private let adapter: AdapterSet<Float>
  private let head: DiscriminatorHead<Float>?
  package let adapterOptimizer: ShardedOptimizer
  package let headOptimizer: ShardedOptimizer?
  /// The ranks that hold all of it together.
  let ranks: RankSet
  private let context: RunContext
  private let batches: TrainingBatches
  private let scoreTimes: TimeDistribution

  private var options: RunConfiguration.Distill { context.configuration.distill }
  private var recomputedShare: Double { context.configuration.recomputedShare }

  /// Adds the adapter and, if it is used, the discriminator's head to the networks.
  init(_ networks: Networks, of ranks: RankSet, context: RunContext, batches: TrainingBatches) {
    self.networks = networks
    self.ranks = ranks
    self.context = context
    self.batches = batches
    let options = context.configuration.distill
    adapter = networks.addAdapter(
      rank: options.loraRank, alpha: options.loraAlpha, seed: context.seed)
    head =
      options.lambdaAdversarial > 0
      ? networks.addHead(width: options.discriminatorWidth, seed: context.seed) : nil
    scoreTimes = .uniform(
      shift: options.scoreShift, bounds: options.scoreMinimum...options.scoreMaximum)
    adapterOptimizer = context.distillOptimizer(context.weights(adapter.parameters, in: ranks))
    headOptimizer = head.map {
      context.distillOptimizer(context.weights($0.parameters, in: ranks))
    }
  }

  // MARK: Score

  /// What the generator learns from at one microbatch.
  struct Score {
    /// Of the loss, at the sample.
    let gradient: Tensor<Float>
    let reading: Reading
  }

  /// What users are told of a score.
  struct Reading {
    let loss: Double
    /// `DistributionMatching.Result.meanDistance`.
    let distance: Double
    let nonFiniteCount: Int
  }

  /// The loss of a sample and its gradient there. No parameter gets a gradient: of the head too only the
  /// way to x is recorded.
  func score(_ sample: Tensor<Float>, _ batch: TrainingBatch, step: Int) -> Score {
    let tape = context.tape(.base)
    let x = tape.input(sample)
    let times = scoreTimes(.scoreTime, batch, step)
    let alphaWeak = options.method == .dmd2 ? 0 : options.alphaWeak
    let weak = Adapter(adapter, weight: alphaWeak)
    let real = GuidedDenoiser<Float>(
      conditional: BoundDenoiser(
        networks.base, conditions: batch.conditions, adapter: weak, sequence: ranks.sequence),
      unconditional: BoundDenoiser(
        networks.base, conditions: batch.conditions.map { _ in Condition() }, adapter: weak,
        sequence: ranks.sequence),
      scale: options.guidance)
    let matching = DistributionMatching()
    let result = matching.evaluate(
      generated: x, noise: context.noise(.scoreNoise, batch, step: step), times: times,
      fake: fake(batch), real: real, on: tape)
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
    guard let gradient = tape.gradient(of: x) else { trap("no term reached the sample") }
    return Score(
      gradient: gradient,
      reading: Reading(
        loss: terms.reduce(0) { $0 + $1.weight * $1.term.loss },
        distance: result.meanDistance, nonFiniteCount: result.nonFiniteCount))
  }

  // MARK: Train

  /// One update of the fake DiT and the discriminator.
  /// - Returns: the loss of each microbatch, in order.
  /// - Collective: over the ranks of the role.
  func train(
    step: Int, _ passes: PassCount, outcomes: inout [String: StepOutcome],
    sample: @escaping (_ microbatch: Int, _ batch: TrainingBatch) -> Tensor<Float>
  ) throws -> [Double] {
    let targets = [adapterOptimizer, headOptimizer].compactMap(\.self)
      .map { GradientTarget($0.weights) }
    // The head's features are passes of their own.
    let passes = head == nil ? passes : .several
    let (gradients, losses) = context.gradients(of: targets, in: ranks, passes) { microbatch in
      let batch = batches.batch(step: step, microbatch: microbatch, in: context.arena)
      return differentiate(sample(microbatch, batch), batch: batch, step: step)
    }
    let microbatchCount = context.configuration.batch.microbatches
    outcomes[UpdatedNetwork.fake.rawValue] = try adapterOptimizer.step(
      gradientSum: gradients[0], microbatchCount: microbatchCount,
      learningRate: options.criticLearningRate)
    outcomes[UpdatedNetwork.discriminator.rawValue] = try headOptimizer?.step(
      gradientSum: gradients[1], microbatchCount: microbatchCount,
      learningRate: options.criticLearningRate)
    return losses
  }

  /// Forward and backward of one microbatch; returns its loss. Not inlined: so `x` and `batch` live to its end.
  @inline(never)
  private func differentiate(_ x: Tensor<Float>, batch: TrainingBatch, step: Int) -> Double {
    let tape = context.tape(.fake)
    var terms = [(weight: 1.0, term: flow(x, batch: batch, step: step, on: tape))]
    if let head {
      let logits = head.inUse(tape: tape, sequence: ranks.sequence) {
        [x, batch.latents].map {
          discriminate(Value(constant: $0), batch: batch, step: step, head: head, on: tape)
        }
      }
      terms += AdversarialObjective().discriminator(
        fakeLogits: logits[0], realLogits: logits[1], on: tape
      ).map { (options.lambdaDiscriminator, $0) }
    }
    ObjectiveTerm.backward(terms, on: tape)
    return terms.reduce(0) { $0 + $1.weight * $1.term.loss }
  }

  // MARK: Parts

  /// ‖F_φ(x_t, t) − (ε − x)‖². Not inlined: the noise and what is noised are gone when it returns.
  @inline(never)
  private func flow(
    _ x: Tensor<Float>, batch: TrainingBatch, step: Int, on tape: Tape<Float>
  ) -> ObjectiveTerm<Float> {
    let times = scoreTimes(.criticTime, batch, step)
    let noise = context.noise(.criticNoise, batch, step: step)
    let noisy = FlowMatching.noised(
      x, noise: noise, times: times, in: context.arena, booking: Booking(.fake, .activations))
    let velocity = fake(batch, recomputedShare: recomputedShare)
      .velocity(of: Value(constant: noisy), times: times, on: tape)
    return FlowMatchingObjective().evaluate(
      prediction: velocity, clean: x, noise: noise, on: tape)
  }

  private func fake(_ batch: TrainingBatch, recomputedShare: Double = 0) -> BoundDenoiser {
    BoundDenoiser(
      networks.base, conditions: batch.conditions,
      adapter: Adapter(adapter, weight: options.alphaStrong), recomputedShare: recomputedShare,
      sequence: ranks.sequence)
  }

  /// D(x) = head(features of W at a noised x). (19)
  private func discriminate(
    _ x: Value<Float>, batch: TrainingBatch, step: Int, head: DiscriminatorHead<Float>,
    on tape: Tape<Float>
  ) -> Value<Float> {
    let times = context.streams(.adversarialTime, step: step, counters: batch.counters)
      .map { $0.uniform(at: 0) }
    let noisy = tape.combineSamples(
      times.map { 1 - $0 }, x, times,
      Value(constant: context.noise(.adversarialNoise, batch, step: step)))
    let features = networks.base.features(
      tape: tape, noisy: noisy, times: times, conditions: batch.conditions,
      recomputedShare: recomputedShare, sequence: ranks.sequence)
    return head.forward(tape: tape, features: features, sequence: ranks.sequence)
  }

  private func scoreTimes(
    _ purpose: RandomPurpose, _ batch: TrainingBatch, _ step: Int
  ) -> [Double] {
    context.streams(purpose, step: step, counters: batch.counters)
      .map(scoreTimes.time(from:))
  }
}
