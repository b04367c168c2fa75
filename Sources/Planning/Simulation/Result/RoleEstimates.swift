// Split roles: the turns of either set of ranks simulated by themselves, joined by `RoleTimeline`, with seconds in place
// of operations.
//
// Scores need samples that have come a step before, so their times do not depend on the generator's ranks. These make
// a sample with a tape, then wait for the gradient there: the way back of a microbatch is released when its scores are
// through and the gradient has travelled. So g of the timeline includes the waits for gradients, which the plan leaves
// out. At the end of every step the samples of the next one travel together.

import Basics
import MeshLayout

extension RoleTimeline {
  /// - Parameter value: of a turn of a role.
  init(_ sizes: WorkloadSizes, _ value: (RankRole, SimulatedTurn) -> Double) {
    self.init(
      criticRatio: sizes.criticRatio, training: value(.generator, .training(sizes)),
      samples: value(.generator, .samples(sizes)), scores: value(.score, .scores(sizes)),
      criticTurn: value(.score, .criticTurn(sizes)))
  }
}

/// Steps of split roles, as means over steps.
package struct RoleEstimates: Codable, Equatable, Sendable {
  /// In seconds.
  package let timeline: RoleTimeline
  /// Seconds in which the samples of a step travel, at its end.
  package let sampleSeconds: Double
  /// Of a rank of either role; what it waits for the other role is part of the bubble.
  package let score: StepEstimate
  package let generator: StepEstimate

  package var seconds: Double { timeline.step + sampleSeconds }

  /// The role that computes longest.
  package var busiest: StepEstimate { score.compute > generator.compute ? score : generator }

  /// - Precondition: the layout splits roles, and microbatches go round in both sets.
  init(_ run: SimulatedRun, _ layout: SimulatedLayout, microbatchCount total: Int) {
    guard let places = try? layout.shape.roles(of: total) else {
      trap("\(layout) does not split roles for \(total) microbatches")
    }
    let sizes = run.sizes
    let sets = (score: layout.layout(of: .score), generator: layout.layout(of: .generator))
    let counts = (
      score: run.microbatchCount(sets.score, of: total),
      generator: run.microbatchCount(sets.generator, of: total)
    )
    let latents = LatentTraffic(run.work, layout)
    let scores = TurnProgram(
      run.work, sets.score, .scores(sizes), microbatchCount: counts.score
    ).run()
    let releases = scores.passEnds.map { $0 + latents.gradientSeconds }
    let trainings = Self.arrivals(places).map { order in
      StepEstimate.turn(
        run.work, sets.generator, .training(sizes), microbatchCount: order.count,
        releases: order.map { releases[$0] })
    }
    guard let training = trainings.max(by: { $0.seconds < $1.seconds }) else {
      trap("no microbatches")
    }
    let samples = StepEstimate.turn(
      run.work, sets.generator, .samples(sizes), microbatchCount: counts.generator)
    let critic = StepEstimate.turn(
      run.work, sets.score, .criticTurn(sizes), microbatchCount: counts.score)
    let scored = StepEstimate(scores)
    timeline = RoleTimeline(
      criticRatio: sizes.criticRatio, training: training.seconds, samples: samples.seconds,
      scores: scored.seconds, criticTurn: critic.seconds)
    sampleSeconds = latents.sampleSeconds(
      sent: counts.generator, received: counts.score)
    let seconds = timeline.step + sampleSeconds
    let share = 1 / Double(sizes.criticRatio)
    func rank(_ generatorTurn: StepEstimate, _ every: StepEstimate, sent: Double) -> StepEstimate {
      var step = every
      step.add(generatorTurn, times: share)
      step.seconds = seconds
      step.bubble = max(0, seconds - step.compute - step.exposedCommunication)
      step.sentLatents = sent
      return step
    }
    score = rank(
      scored, critic,
      sent: share * Double(counts.score) * latents.gradientsPerMicrobatch * latents.byteCount)
    generator = rank(
      training, samples,
      sent: Double(counts.generator) * latents.samplesPerMicrobatch * latents.byteCount)
  }

  /// As which of their score ranks' microbatches those of a generator rank are scored, in its order; of each kind of
  /// rank, without those that never wait longer than another.
  private static func arrivals(_ places: RolePlaces) -> [[Int]] {
    let (score, generator) = (places.share(of: .score), places.share(of: .generator))
    var place: [Int: Int] = [:]
    for rank in 0..<score.rankCount {
      for (index, microbatch) in score.microbatches(of: rank).enumerated() {
        place[microbatch] = index
      }
    }
    let orders = Set(
      (0..<generator.rankCount).map { rank in
        generator.microbatches(of: rank).map { place[$0] ?? 0 }
      })
    return orders.filter { order in
      !orders.contains { other in
        other != order && other.count >= order.count
          && zip(order, other).allSatisfy { $0 <= $1 }
      }
    }
  }
}

/// Samples to the ranks that score them, and gradients back: each goes once to every rank that computes the
/// microbatch in the other role, from those that have it in turn.
struct LatentTraffic {
  /// Of a microbatch.
  let byteCount: Double
  /// How many samples of a microbatch one of its generator ranks sends, and how many gradients one of its score ranks, on
  /// average.
  let samplesPerMicrobatch: Double
  let gradientsPerMicrobatch: Double
  private let mostSamples: Int
  private let mostGradients: Int
  private let network: NetworkModel
  private let crossesNodes: Bool

  init(_ work: SimulatedWork, _ layout: SimulatedLayout) {
    let costs = LayoutCosts(work, layout)
    byteCount = costs.latentByteCount
    let score = layout.layout(of: .score).microbatchRankCount
    let generator = layout.layout(of: .generator).microbatchRankCount
    samplesPerMicrobatch = Double(score) / Double(generator)
    gradientsPerMicrobatch = Double(generator) / Double(score)
    mostSamples = (score + generator - 1) / generator
    mostGradients = (score + generator - 1) / score
    network = costs.network
    crossesNodes = layout.nodeCount > 1
  }

  private func seconds(_ messageCount: Int) -> Double {
    Double(messageCount) * network.message(byteCount: byteCount, crossesNodes: crossesNodes)
  }

  /// From the end of a microbatch's scores until all its generator ranks have the gradient.
  var gradientSeconds: Double { seconds(mostGradients) }

  /// - Parameters:
  ///   - sent: microbatches of a generator rank.
  ///   - received: of a score rank.
  func sampleSeconds(sent: Int, received: Int) -> Double {
    seconds(max(sent * mostSamples, received))
  }
}
