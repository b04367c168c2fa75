// The turns of a step of distillation, wherever its roles are: a step is a critic turn, and some steps have a
// generator turn before it, whose samples the critic turn uses again.

import Planning
import Tensors

/// Networks that a step updates, as users are told of them.
enum UpdatedNetwork: String, CaseIterable {
  case generator
  case fake = "fake DiT"
  case discriminator

  /// Before the names of its metrics.
  var metricsPrefix: String {
    switch self {
    case .generator: "generator_"
    case .fake: "critic_"
    case .discriminator: "discriminator_"
    }
  }
}

/// What one rank knows of a step's turns.
struct TurnReport {
  /// Of the critic turn, by microbatch in order.
  var losses: [Double] = []
  /// Of the generator turn, by microbatch in order.
  var readings: [String: [Double]] = [:]
  /// Of the networks that this rank has a part of.
  var outcomes: [String: StepOutcome] = [:]

  /// - Parameter found: by microbatch; those in flight end in an order of their own.
  mutating func note(_ found: [Int: ScoreRole.Reading]) {
    for (_, reading) in found.sorted(by: { $0.key < $1.key }) {
      readings["loss", default: []].append(reading.loss)
      readings["distance", default: []].append(reading.distance)
      readings["nonfinite", default: []].append(Double(reading.nonFiniteCount))
    }
  }
}

/// Where samples are made, where they are scored, and where who is trained.
protocol DistillTurns: AnyObject {
  /// The ranks that share the microbatches with this one.
  var ranks: RankSet { get }
  /// Before the first step that is run.
  func begin(at step: Int)
  /// - Collective: over all ranks; the step must agree.
  func run(_ step: DistillStep) throws -> TurnReport
}

/// A step of distillation.
struct DistillStep {
  /// Counted from 0 within the phase.
  let number: Int
  let hasGeneratorTurn: Bool
  /// Whether the phase ends with it.
  let isLast: Bool
}

/// All ranks have a part of every role, and take turns.
final class ColocatedTurns: DistillTurns {
  private let generator: GeneratorRole
  private let score: ScoreRole

  init(_ generator: GeneratorRole, _ score: ScoreRole) {
    self.generator = generator
    self.score = score
  }

  var ranks: RankSet { generator.ranks }

  func begin(at step: Int) {}

  func run(_ step: DistillStep) throws -> TurnReport {
    var report = TurnReport()
    var samples: [Int: Tensor<Float>] = [:]
    var readings: [Int: ScoreRole.Reading] = [:]
    if step.hasGeneratorTurn {
      report.outcomes[UpdatedNetwork.generator.rawValue] = try generator.train(
        step: step.number
      ) { [score] microbatch, batch, sample in
        samples[microbatch] = sample
        let score = score.score(sample, batch, step: step.number)
        readings[microbatch] = score.reading
        return score.gradient
      }
      report.note(readings)
    }
    report.losses = try score.train(
      step: step.number, samples.isEmpty ? .several : .one, outcomes: &report.outcomes
    ) { [generator] microbatch, batch in
      samples[microbatch]
        ?? generator.sample(batch, step: step.number, microbatch: microbatch)
    }
    return report
  }
}
