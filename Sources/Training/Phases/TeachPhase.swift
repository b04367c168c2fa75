// Teach: flow-matching training of the real DiT. Its average becomes W.
//
// Source: specification 1.1 and the base-model row of section 3: logit-normal times, shifted.

import Autodiff
import Basics
import Diffusion
import Exchange
import Foundation
import Models
import Planning
import Tensors

package struct TeachPhase {
  package static let name = "teach"

  private let context: RunContext
  private let networks: Networks
  private let batches: TrainingBatches
  package let optimizer: ShardedOptimizer
  private let times: TimeDistribution

  package init(context: RunContext, networks: Networks, batches: TrainingBatches) {
    self.context = context
    self.networks = networks
    self.batches = batches
    let options = context.configuration.teach
    times = .logitNormal(shift: options.shift)
    optimizer = ShardedOptimizer(
      context.weights(networks.base.parameters),
      configuration: .init(
        beta1: options.beta1, beta2: options.beta2, weightDecay: options.weightDecay,
        clip: options.clip, ema: options.ema))
  }

  /// Linear warm-up, then half a cosine down to zero.
  package static func learningRate(
    step: Int, _ options: RunConfiguration.Teach
  ) -> Double {
    let warmup = min(options.warmupSteps, options.steps)
    if step < warmup { return options.learningRate * Double(step + 1) / Double(warmup) }
    let progress = Double(step - warmup) / Double(max(options.steps - warmup, 1))
    return options.learningRate * 0.5 * (1 + cos(Double.pi * progress))
  }

  /// Trains from `firstStep` on; afterwards W is the average.
  ///
  /// - Parameter save: called after each step with the number of steps done and whether to stop.
  /// - Collective: over the context's transport.
  package func run(
    from firstStep: Int, save: (_ stepsDone: Int, _ mustStop: Bool) throws -> Void
  ) throws {
    let options = context.configuration.teach
    let meter = StepMeter(context: context, phase: Self.name, stepCount: options.steps)
    context.reporter.begin(phase: Self.name, step: firstStep)
    for step in firstStep..<max(options.steps, firstStep) {
      meter.begin()
      let (gradients, losses) = context.gradients(
        of: [GradientTarget(optimizer.weights)], .one
      ) { microbatch in differentiate(step: step, microbatch: microbatch) }
      let rate = Self.learningRate(step: step, options)
      let outcome = try optimizer.step(
        gradientSum: gradients[0], microbatchCount: context.configuration.batch.microbatches,
        learningRate: rate)
      try context.note(outcome, of: "real DiT", in: Self.name, step: step)
      let agreement = try context.agreeOnStep(losses: losses)
      meter.record(
        step: step, agreement: agreement,
        further: outcome.metrics(prefix: "") + [("learning_rate", .number(rate))])
      try save(step + 1, agreement.shouldStop)
    }
    try optimizer.adoptAverage()
    try meter.finish()
    context.reporter.finishPhase()
  }

  /// Forward and backward of one microbatch; returns its loss.
  private func differentiate(step: Int, microbatch: Int) -> Double {
    let batch = batches.batch(step: step, microbatch: microbatch, in: context.arena)
    let booking = Booking(.base, .activations)
    let times = context.streams(.teachTime, step: step, counters: batch.counters)
      .map(self.times.time(from:))
    let noise: Tensor<Float> = normalTensor(
      context.streams(.teachNoise, step: step, counters: batch.counters),
      sampleShape: Array(batch.latents.shape.dropFirst()), in: context.arena, booking: booking)
    let noisy = FlowMatching.noised(
      batch.latents, noise: noise, times: times, in: context.arena, booking: booking)
    let tape = context.tape(.base)
    let denoiser = BoundDenoiser(
      networks.base, conditions: batch.conditions,
      recomputedShare: context.configuration.recomputedShare, sequence: context.sequence)
    let velocity = denoiser.velocity(of: Value(constant: noisy), times: times, on: tape)
    let term = FlowMatchingObjective().evaluate(
      prediction: velocity, clean: batch.latents, noise: noise, on: tape)
    ObjectiveTerm.backward([(1, term)], on: tape)
    // As it is planned, whatever the optimizer finds.
    withExtendedLifetime((batch, noise, noisy)) {}
    return term.loss
  }
}
