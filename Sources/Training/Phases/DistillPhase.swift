// Distill: the weak-to-strong step over three roles (specification, section 2), and its baselines.
//
// A step is a critic turn; every criticRatio-th step has a generator turn before it, whose sample the
// critic turn uses again. Each turn differentiates one role only: the other roles' parameters are
// frozen on its tapes, because gradients are bound to a role's set inside `MicrobatchSum` alone.
//
//   generator turn   x = y − τ_k v_θ(y, τ_k)          `GeneratorRole`, trained on the gradient at x
//                    x_F and x_R at x_t               `ScoreRole`, which tells that gradient
//   critic turn      ‖F_φ(x_t, t) − (ε − x)‖²         `ScoreRole`
//
// Which ranks have which role: `ColocatedTurns`, or `GeneratorTurns` with `ScoreTurns`.

import Basics
import Foundation
import Models

package struct DistillPhase {
  package static let name = "distill"

  private let context: RunContext
  private let turns: any DistillTurns
  /// Nil on ranks that score.
  package let generator: GeneratorRole?
  /// Nil on ranks that hold the generator alone.
  package let score: ScoreRole?

  private var options: RunConfiguration.Distill { context.configuration.distill }

  /// All ranks have all roles. Adds generator, adapter and, if it is used, the discriminator's head to the
  /// networks.
  package init(context: RunContext, networks: Networks, batches: TrainingBatches) {
    let network = networks.addGenerator()
    context.weights(network.parameters).copy(from: context.weights(networks.base.parameters))
    let generator = GeneratorRole(
      network, of: context.ranks, context: context, batches: batches)
    let score = ScoreRole(networks, of: context.ranks, context: context, batches: batches)
    self.context = context
    self.generator = generator
    self.score = score
    turns = ColocatedTurns(generator, score)
  }

  /// Each rank has one role.
  package init(context: RunContext, split: SplitNetworks, batches: TrainingBatches) {
    let (ranks, latents) = (split.roles.ranks, split.roles.latents)
    self.context = context
    if let network = split.generator {
      let role = GeneratorRole(network, of: ranks, context: context, batches: batches)
      generator = role
      score = nil
      turns = GeneratorTurns(role, latents: latents, context: context)
    } else if let networks = split.networks {
      let role = ScoreRole(networks, of: ranks, context: context, batches: batches)
      generator = nil
      score = role
      turns = ScoreTurns(role, latents: latents, batches: batches, context: context)
    } else {
      trap("a rank without a role")
    }
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
    if firstStep < options.steps { turns.begin(at: firstStep) }
    for step in firstStep..<max(options.steps, firstStep) {
      meter.begin()
      let report = try turns.run(
        DistillStep(
          number: step, hasGeneratorTurn: step % options.criticRatio == 0,
          isLast: step + 1 == options.steps))
      let agreement = try context.agreeOnStep(
        losses: report.losses, readings: report.readings, outcomes: report.outcomes,
        in: turns.ranks)
      for network in UpdatedNetwork.allCases {
        guard let outcome = agreement.outcomes[network.rawValue] else { continue }
        try context.note(outcome, of: network.rawValue, in: Self.name, step: step)
      }
      meter.record(step: step, agreement: agreement, further: Self.metrics(of: agreement))
      try save(step + 1, agreement.shouldStop)
    }
    try generator?.optimizer.adoptAverage()
    try meter.finish()
    context.reporter.finishPhase()
  }

  private static func metrics(
    of agreement: RunContext.StepAgreement
  ) -> [(name: String, value: MetricsValue)] {
    var metrics: [(name: String, value: MetricsValue)] = []
    if agreement.outcomes[UpdatedNetwork.generator.rawValue] != nil {
      metrics += [
        ("generator_loss", .number(agreement.mean(of: "loss"))),
        ("matching_distance", .number(agreement.mean(of: "distance"))),
        ("matching_nonfinite", .number(agreement.sum(of: "nonfinite"))),
      ]
    }
    return metrics
      + UpdatedNetwork.allCases.flatMap { network in
        agreement.outcomes[network.rawValue]?.metrics(prefix: network.metricsPrefix) ?? []
      }
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
