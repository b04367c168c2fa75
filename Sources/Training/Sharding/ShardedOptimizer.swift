// AdamW on one network whose optimizer state and EMA are sharded over the data-parallel ranks (ZeRO 1).
//
// Every rank holds all parameters; rank r owns range r of the flat vector: it gets the summed gradient
// of that range, holds the moments and the average there, updates it and sends it to the others.
// All of it is elementwise or a fixed tree, so the result does not depend on the number of ranks.
// Source: AdamW (1711.05101), ZeRO (1910.02054) stage 1.

package import Autodiff
package import DenseKernels
package import Exchange
package import MeshLayout
package import ProcessMesh
package import Tensors

/// What became of one update.
package enum StepOutcome: Equatable, Sendable {
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

  package let parameters: ParameterSet<Float>
  package let configuration: Configuration
  package let partition: ShardPartition
  /// This rank's range of the flat vector.
  package let range: Range<Int>
  package let firstMoment: Buffer<Float>
  package let secondMoment: Buffer<Float>
  package let ema: Buffer<Float>?
  /// Updates made, for the bias correction.
  package var updateCount = 0

  private let role: MemoryRole
  private let arena: Arena
  private let exchange: BucketExchange
  private let transport: any Transport

  /// The average starts as a copy of the parameters.
  package init(
    _ parameters: ParameterSet<Float>, role: MemoryRole, configuration: Configuration,
    exchange: BucketExchange, transport: any Transport, arena: Arena
  ) {
    self.parameters = parameters
    self.role = role
    self.configuration = configuration
    self.exchange = exchange
    self.transport = transport
    self.arena = arena
    partition = ShardPartition(
      count: parameters.layout.count, shardCount: transport.size)
    let range = partition.range(of: transport.rank)
    self.range = range
    func state(_ category: MemoryCategory) -> Buffer<Float> {
      arena.allocate(
        Float.self, count: range.count, booking: Booking(role, category), zeroed: true)
    }
    firstMoment = state(.optimizer)
    secondMoment = state(.optimizer)
    ema = configuration.ema == nil ? nil : state(.ema)
    restartAverage()
  }

  /// Makes the average equal to the parameters.
  package func restartAverage() { ema?.copy(from: parameters.values[range]) }

  /// Sums the ranks' gradients, clips, updates this rank's range and gathers all ranges.
  ///
  /// - Parameter gradientSum: this rank's sum over its microbatches; the mean is over all of them.
  /// - Collective: over the transport.
  /// - Cost: one reduce-scatter and one all-gather of the flat vector; holds two shards meanwhile. One
  ///   rank works in place.
  package func step(
    gradientSum: Buffer<Float>, microbatchCount: Int, learningRate: Double
  ) throws -> StepOutcome {
    let isAlone = transport.size == 1
    let gradient = isAlone ? gradientSum : shardBuffer(.exchange)
    if !isAlone {
      try exchange.reduceScatter(gradientSum, partition: partition, into: gradient)
    }
    let squares = try globalSquaredNorm(
      shard: gradient, partition: partition, transport: transport)
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
    // Updated aside, so that `values` is still what the other ranks hold when the gather codes
    // the difference.
    let updated = isAlone ? parameters.values : shardBuffer(.exchange)
    if !isAlone { updated.copy(from: parameters.values[range]) }
    AdamW.update(
      parameters: updated, gradients: gradient, firstMoment: firstMoment,
      secondMoment: secondMoment, ema: ema, step: update)
    if !isAlone {
      try exchange.allGather(
        updated, partition: partition, into: parameters.values, flatIsBase: true)
    }
    return .updated(gradientNorm: norm, clippedTo: clipping < 1 ? configuration.clip : nil)
  }

  /// The whole average, on every rank; the parameters themselves where none is kept.
  /// - Collective: over the transport.
  package func gatherAverage(into target: Buffer<Float>) throws {
    guard let ema else { return target.copy(from: parameters.values) }
    try exchange.allGather(ema, partition: partition, into: target, kind: .movingAverages)
  }

  private func shardBuffer(_ category: MemoryCategory) -> Buffer<Float> {
    arena.allocate(Float.self, count: range.count, booking: Booking(role, category))
  }
}
