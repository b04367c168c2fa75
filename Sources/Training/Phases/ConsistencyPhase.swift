// The LCM baseline of the distill phase (specification 1.9): only the generator is trained.
//
// Its target network is an average of the generator that every rank updates alone as far as it holds it:
// elementwise, so equal on all ranks without a message.

import Autodiff
import Basics
import DenseKernels
import Diffusion
import Models
import Planning
import Tensors

package struct ConsistencyPhase {
  private let context: RunContext
  private let networks: Networks
  private let batches: TrainingBatches
  private let generator: ConditionedTransformer<Float>
  private let target: ConditionedTransformer<Float>
  package let optimizer: ShardedOptimizer
  package let targetWeights: ShardedParameters
  private let objective: ConsistencyObjective

  private var options: RunConfiguration.Distill { context.configuration.distill }

  /// Adds the generator to the networks, and a target network beside them.
  package init(context: RunContext, networks: Networks, batches: TrainingBatches) {
    self.context = context
    self.networks = networks
    self.batches = batches
    let options = context.configuration.distill
    generator = networks.addGenerator()
    target = networks.addWeights(role: .generator)
    context.weights(generator.parameters).copy(from: context.weights(networks.base.parameters))
    targetWeights = context.weights(target.parameters)
    targetWeights.copy(from: context.weights(generator.parameters))
    objective = ConsistencyObjective(shift: options.flowShift)
    optimizer = context.distillOptimizer(
      context.weights(generator.parameters), isAveraged: true)
  }

  /// Trains from `firstStep` on; afterwards the generator is its average.
  /// - Collective: over the context's transport.
  package func run(
    from firstStep: Int, save: (_ stepsDone: Int, _ mustStop: Bool) throws -> Void
  ) throws {
    let meter = StepMeter(
      context: context, phase: DistillPhase.name, stepCount: options.steps,
      firstGlobalStep: context.configuration.teach.steps)
    context.reporter.begin(phase: DistillPhase.name, step: firstStep)
    for step in firstStep..<max(options.steps, firstStep) {
      meter.begin()
      let (gradients, losses) = context.gradients(
        of: [GradientTarget(optimizer.weights)], .several
      ) { microbatch in differentiate(step: step, microbatch: microbatch) }
      let outcome = try optimizer.step(
        gradientSum: gradients[0], microbatchCount: context.configuration.batch.microbatches,
        learningRate: options.generatorRate(step: step))
      try context.note(outcome, of: "generator", in: DistillPhase.name, step: step)
      let decay = Float(options.consistencyEMA)
      target.parameters.dropUnits()
      let average = targetWeights.held
      Float.combine(decay, average, 1 - decay, optimizer.weights.held, into: average)
      let agreement = try context.agreeOnStep(losses: losses)
      meter.record(
        step: step, agreement: agreement,
        further: outcome.metrics(prefix: "generator_"))
      try save(step + 1, agreement.shouldStop)
    }
    try optimizer.adoptAverage()
    try meter.finish()
    context.reporter.finishPhase()
  }

  private func differentiate(step: Int, microbatch: Int) -> Double {
    let batch = batches.batch(step: step, microbatch: microbatch, in: context.arena)
    let times = context.streams(.consistencyTime, step: step, counters: batch.counters)
      .map(objective.times(from:))
    let noise: Tensor<Float> = normalTensor(
      context.streams(.consistencyNoise, step: step, counters: batch.counters),
      sampleShape: Array(batch.latents.shape.dropFirst()), in: context.arena,
      booking: Booking(.generator, .activations))
    let teacher = GuidedDenoiser<Float>(
      conditional: BoundDenoiser(
        networks.base, conditions: batch.conditions, sequence: context.sequence),
      unconditional: BoundDenoiser(
        networks.base, conditions: batch.conditions.map { _ in Condition() },
        sequence: context.sequence),
      scale: options.guidance)
    let tape = context.tape(.generator)
    let term = objective.evaluate(
      clean: batch.latents, noise: noise, times: times,
      generator: BoundDenoiser(
        generator, conditions: batch.conditions,
        recomputedShare: context.configuration.recomputedShare, sequence: context.sequence),
      target: BoundDenoiser(target, conditions: batch.conditions, sequence: context.sequence),
      teacher: teacher, on: tape)
    ObjectiveTerm.backward([(1, term)], on: tape)
    // As it is planned, whatever the optimizer finds.
    withExtendedLifetime((batch, noise)) {}
    return term.loss
  }
}
