// The generator: makes samples, and learns from the gradients that others find at them. (9)

import Autodiff
import Basics
import DenseKernels
import Diffusion
import Exchange
package import Models
import Planning
import Tensors

package struct GeneratorRole {
  package let network: ConditionedTransformer<Float>
  package let optimizer: ShardedOptimizer
  /// The ranks that hold it together.
  let ranks: RankSet
  private let context: RunContext
  private let batches: TrainingBatches
  private let rollout: Rollout

  private var options: RunConfiguration.Distill { context.configuration.distill }
  private var recomputedShare: Double { context.configuration.recomputedShare }

  /// - Parameter network: among `ranks`, as it starts.
  init(
    _ network: ConditionedTransformer<Float>, of ranks: RankSet, context: RunContext,
    batches: TrainingBatches
  ) {
    self.network = network
    self.ranks = ranks
    self.context = context
    self.batches = batches
    let options = context.configuration.distill
    optimizer = context.distillOptimizer(
      context.weights(network.parameters, in: ranks), isAveraged: true)
    rollout = Rollout(
      schedule: SamplingSchedule(stepCount: options.generatorSteps, shift: options.flowShift),
      source: options.rollout)
  }

  /// The sample of a microbatch; no gradient is kept.
  func sample(_ batch: TrainingBatch, step: Int, microbatch: Int) -> Tensor<Float> {
    generate(
      batch, step: step, microbatch: microbatch, on: context.tape(.generator, isRecording: false)
    ).tensor
  }

  /// The samples of this rank's microbatches of a step.
  func samples(step: Int) -> [Int: Tensor<Float>] {
    var samples: [Int: Tensor<Float>] = [:]
    context.forEachMicrobatch(in: ranks, .several) { microbatch in
      let batch = batches.batch(step: step, microbatch: microbatch, in: context.arena)
      samples[microbatch] = sample(batch, step: step, microbatch: microbatch)
    }
    return samples
  }

  /// One update.
  /// - Parameter gradient: of the loss of a microbatch, at its sample.
  /// - Collective: over the ranks of the role.
  func train(
    step: Int,
    gradient:
      @escaping (_ microbatch: Int, _ batch: TrainingBatch, _ sample: Tensor<Float>) ->
      Tensor<Float>
  ) throws -> StepOutcome {
    let gradients = context.gradients(
      of: [GradientTarget(optimizer.weights)], in: ranks, .several
    ) { microbatch in
      let batch = batches.batch(step: step, microbatch: microbatch, in: context.arena)
      let tape = context.tape(.generator)
      let x = generate(batch, step: step, microbatch: microbatch, on: tape)
      tape.backward([(x, gradient(microbatch, batch, x.tensor))])
      // As it is planned, whatever the optimizer finds.
      withExtendedLifetime(batch) {}
    }.sums
    return try optimizer.step(
      gradientSum: gradients[0], microbatchCount: context.configuration.batch.microbatches,
      learningRate: options.generatorRate(step: step))
  }

  // MARK: Parts

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
      let loaded = deepest(ranks.peers(of: microbatch))
      for _ in loaded..<deepest(context.companions(of: microbatch, in: ranks)) {
        context.skipPass(in: ranks)
      }
      for _ in depth..<loaded { context.attendPass(of: network.parameters, in: ranks) }
    }
    return rollout.generate(
      depth: depth,
      noise: context.noise(.rolloutNoise, batch, step: step), truth: batch.latents,
      generator: BoundDenoiser(
        network, conditions: batch.conditions,
        recomputedShare: tape.isRecording ? recomputedShare : 0,
        sequence: ranks.sequence),
      on: tape
    ) { simulatedStep in
      // Each simulated step has a stream of its own: K of them per training step.
      context.noise(.rolloutRenoise, batch, step: step * options.generatorSteps + simulatedStep)
    }
  }
}

extension RunContext {
  /// Noise for each sample of a batch at a step.
  func noise(_ purpose: RandomPurpose, _ batch: TrainingBatch, step: Int) -> Tensor<Float> {
    normalTensor(
      streams(purpose, step: step, counters: batch.counters),
      sampleShape: Array(batch.latents.shape.dropFirst()), in: arena,
      booking: Booking(.common, .activations))
  }

  /// The optimizer of a network that the distill phase trains.
  func distillOptimizer(
    _ weights: ShardedParameters, isAveraged: Bool = false
  ) -> ShardedOptimizer {
    let options = configuration.distill
    return ShardedOptimizer(
      weights,
      configuration: .init(
        beta1: options.beta1, beta2: options.beta2, weightDecay: options.weightDecay,
        clip: options.clip, ema: isAveraged && options.ema > 0 ? options.ema : nil))
  }
}
