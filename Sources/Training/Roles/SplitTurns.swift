// Turns on disjoint ranks: some hold the generator and make samples, the others score and learn them.
//
// Between two generator turns the generator does not change, so its ranks make the samples of the next step
// while the score ranks work on those of this one; they travel when all ranks have ended the step. In a
// generator turn the score ranks send the gradient at each sample as soon as they have it; meanwhile the
// generator ranks make the same sample once more, now with a tape, and go on to differentiate:
//
//   generator   | make x₁ on tape, gradient, back, … update, samples of step 2 | samples of step 3 | …
//   score       | score x₁, x₂, …                then the critic turn          | critic turn       | …
//   step        | 1, with a generator turn                                     | 2                 |
//
// So nothing waits within a step but the first gradient, at the price of one forward pass of the generator
// turn. The numbers are those of `ColocatedTurns`: a sample is the same with and without tape.

import Basics
import DenseKernels
import Exchange
import Planning
import Tensors
import VideoData

/// The turns of a rank that makes samples.
final class GeneratorTurns: DistillTurns {
  private let role: GeneratorRole
  private let latents: LatentExchange
  private let context: RunContext
  /// Samples of the next step.
  private var samples: [Int: Tensor<Float>] = [:]

  init(_ role: GeneratorRole, latents: LatentExchange, context: RunContext) {
    self.role = role
    self.latents = latents
    self.context = context
  }

  var ranks: RankSet { role.ranks }

  func begin(at step: Int) { samples = role.samples(step: step) }

  func run(_ step: DistillStep) throws -> TurnReport {
    var report = TurnReport()
    try latents.bringSamples(samples.mapValues(\.buffer)) { _ in
      trap("a sample for a rank that makes them")
    }
    samples = [:]
    if step.hasGeneratorTurn {
      report.outcomes[UpdatedNetwork.generator.rawValue] = try role.train(
        step: step.number
      ) { [latents, context] microbatch, _, sample in
        let gradient = Tensor<Float>(
          shape: sample.shape, in: context.arena, booking: Booking(.generator, .activations))
        context.exchangeInPass {
          try latents.receiveGradient(of: microbatch, into: gradient.buffer)
        }
        return gradient
      }
    }
    if !step.isLast { samples = role.samples(step: step.number + 1) }
    return report
  }
}

/// The turns of a rank that scores samples and learns them.
final class ScoreTurns: DistillTurns {
  private let role: ScoreRole
  private let latents: LatentExchange
  private let batches: TrainingBatches
  private let context: RunContext

  init(
    _ role: ScoreRole, latents: LatentExchange, batches: TrainingBatches, context: RunContext
  ) {
    self.role = role
    self.latents = latents
    self.batches = batches
    self.context = context
  }

  var ranks: RankSet { role.ranks }

  func begin(at step: Int) {}

  func run(_ step: DistillStep) throws -> TurnReport {
    var report = TurnReport()
    var samples: [Int: Tensor<Float>] = [:]
    let shape = [batches.samplesPerMicrobatch] + batches.prepared.latentShape
    try latents.bringSamples([:]) { microbatch in
      let sample = Tensor<Float>(
        shape: shape, in: context.arena, booking: Booking(.common, .activations))
      samples[microbatch] = sample
      return sample.buffer
    }
    func sample(_ microbatch: Int) -> Tensor<Float> {
      guard let sample = samples[microbatch] else { trap("no sample of \(microbatch) came") }
      return sample
    }
    if step.hasGeneratorTurn {
      var readings: [Int: ScoreRole.Reading] = [:]
      context.forEachMicrobatch(in: ranks, .several) { [self] microbatch in
        let batch = batches.batch(
          step: step.number, microbatch: microbatch, in: context.arena)
        let score = role.score(sample(microbatch), batch, step: step.number)
        readings[microbatch] = score.reading
        context.exchangeInPass {
          try latents.sendGradient(score.gradient.buffer, of: microbatch)
        }
      }
      report.note(readings)
    }
    report.losses = try role.train(step: step.number, .one, outcomes: &report.outcomes) {
      microbatch, _ in sample(microbatch)
    }
    return report
  }
}
