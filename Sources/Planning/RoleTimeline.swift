// How long a step of distillation takes where roles are on disjoint ranks, which meet at the end of each step.
//
// A cycle is a step with a generator turn and r − 1 without (r: criticRatio). With g the generator's training,
// s the samples of a step, b the scores of a generator turn and f a critic turn, each on its busiest rank:
//
//     cycle = max(g + s, b + f) + (r − 1) max(s, f)
//     idle share of generator ranks = 1 − (g + r s) / cycle, of score ranks = 1 − (b + r f) / cycle
//
// Left out: the wait for the first gradient of a generator turn, and that of ranks of one role for each
// other where rollouts are of unequal depth.

package import MeshLayout

/// Times of the turns, in operations of the busiest rank of a role.
package struct RoleTimeline: Codable, Equatable, Sendable {
  package let criticRatio: Int
  /// g: the generator is trained.
  package let training: Double
  /// s: the samples of a step are made.
  package let samples: Double
  /// b: samples are scored.
  package let scores: Double
  /// f: the critic is trained.
  package let criticTurn: Double

  package init(
    criticRatio: Int, training: Double, samples: Double, scores: Double, criticTurn: Double
  ) {
    self.criticRatio = criticRatio
    self.training = training
    self.samples = samples
    self.scores = scores
    self.criticTurn = criticTurn
  }

  /// From one generator turn to the next.
  package var cycle: Double {
    max(training + samples, scores + criticTurn)
      + Double(criticRatio - 1) * max(samples, criticTurn)
  }

  /// A step, on average.
  package var step: Double { cycle / Double(criticRatio) }

  /// How much of a cycle the busiest rank of a role waits for the other role.
  package func idleShare(of role: RankRole) -> Double {
    let work =
      role == .generator
      ? training + Double(criticRatio) * samples : scores + Double(criticRatio) * criticTurn
    return cycle > 0 ? 1 - work / cycle : 0
  }
}
