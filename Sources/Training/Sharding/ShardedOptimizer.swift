// AdamW on one network whose optimizer state and EMA are sharded over the data-parallel ranks (ZeRO).
//
// Each rank owns a part of the flat vector: it gets the summed gradient of that part, holds the moments
// and the average there, updates it and makes it known to the others as far as they hold it.
// Replicas sum their shards' gradients and then do the same.
// All of it is elementwise or a fixed tree, so the result does not depend on the number of ranks.
// Source: AdamW (1711.05101), ZeRO (1910.02054) stages 1 to 3.

package import Autodiff
package import DenseKernels
import Exchange
import MeshLayout
import ProcessMesh
import Tensors

/// What became of one update.
package enum StepOutcome: Codable, Equatable, Sendable {
  case updated(gradientNorm: Double, clippedTo: Double?)
  /// The gradient was not finite; nothing was changed.
  case skippedNonFinite
}

package final class ShardedOptimizer {
  package struct Configuration: Equatable, Sendable {
    package var beta1: Double
    package var beta2: Double
    package var weightDecay: Double
    /// Largest norm of the mean gradient.
    package var clip: Double
    /// Decay of the average; nil keeps none.
    package var ema: Double?
    package var epsilon = 1e-8

    package init(
      beta1: Double, beta2: Double, weightDecay: Double, clip: Double, ema: Double?
    ) {
      self.beta1 = beta1
      self.beta2 = beta2
      self.weightDecay = weightDecay
      self.clip = clip
      self.ema = ema
    }
  }

  package let weights: ShardedParameters
  package let configuration: Configuration
  /// State of the elements that this rank owns, in the order of `weights.stretches`.
  package let firstMoment: Buffer<Float>
  package let secondMoment: Buffer<Float>
  package let ema: Buffer<Float>?
  /// Updates made, for the bias correction.
  package var updateCount = 0

  package var parameters: ParameterSet<Float> { weights.parameters }
  private var transport: any Transport { weights.group.transport }

  /// The average starts as a copy of the parameters.
  package init(_ weights: ShardedParameters, configuration: Configuration) {
    self.weights = weights
    self.configuration = configuration
    func state(_ category: MemoryCategory) -> Buffer<Float> {
      weights.group.arena.allocate(
        Float.self, count: weights.ownCount, booking: Booking(weights.parameters.role, category),
        zeroed: true)
    }
    firstMoment = state(.optimizer)
    secondMoment = state(.optimizer)
    ema = configuration.ema == nil ? nil : state(.ema)
    restartAverage()
  }

  /// Makes the average equal to the parameters.
  package func restartAverage() { ema.map(weights.copyOwn) }

  /// Sums the ranks' gradients where that is still to do, clips, updates the own elements and makes them
  /// known.
  ///
  /// - Parameters:
  ///   - gradientSum: what `MicrobatchSum` made: at stage 1 this rank's sum over its microbatches, above
  ///     it the own part of all ranks' sum.
  ///   - microbatchCount: of all ranks, which the mean is over.
  /// - Collective: over the group, and its replicas.
  /// - Cost: at stage 1 one reduce-scatter of the flat vector, at stages 1 and 2 one all-gather; holds one
  ///   or two shards meanwhile. One rank works in place.
  package func step(
    gradientSum: Buffer<Float>, microbatchCount: Int, learningRate: Double
  ) throws -> StepOutcome {
    let isAlone = transport.size == 1
    let isReduced = isAlone || weights.stage >= .gradients
    let gradient = isReduced ? gradientSum : weights.shardBuffer(.exchange)
    if !isReduced { try weights.reduceScatter(gradientSum, into: gradient) }
    try weights.sumOverReplicas(gradient)
    let squares = try globalSquaredNorm(
      shard: gradient, sharding: weights.sharding, transport: transport)
    let norm = squares.squareRoot() / Double(microbatchCount)
    guard norm.isFinite else { return .skippedNonFinite }
    let clipping = norm > configuration.clip ? configuration.clip / norm : 1
    updateCount += 1
    var update = AdamW.Step(number: updateCount, learningRate: learningRate)
    update.beta1 = configuration.beta1
    update.beta2 = configuration.beta2
    update.epsilon = configuration.epsilon
    update.weightDecay = configuration.weightDecay
    update.gradientScale = Float(clipping / Double(microbatchCount))
    update.emaDecay = Float(configuration.ema ?? 0)
    // Where others hold the elements too they are updated aside, so that the flat vector is still what
    // all hold when the gather codes the difference.
    let isInPlace = isAlone || weights.stage == .parameters
    let updated = isInPlace ? weights.held : weights.shardBuffer(.exchange)
    if isInPlace { parameters.dropUnits() } else { weights.copyOwn(into: updated) }
    AdamW.update(
      parameters: updated, gradients: gradient, firstMoment: firstMoment,
      secondMoment: secondMoment, ema: ema, step: update)
    if !isInPlace { try weights.publish(updated, kind: .parameters, isUpdate: true) }
    return .updated(gradientNorm: norm, clippedTo: clipping < 1 ? configuration.clip : nil)
  }

  /// The parameters become their average; they stay where none is kept.
  /// - Collective: over the group.
  package func adoptAverage() throws {
    guard let ema else { return }
    try weights.publish(ema, kind: .movingAverages, isUpdate: false)
  }
}
