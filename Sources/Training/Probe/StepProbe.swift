// What a rank does in a second, measured at the start: products, attention and elementwise kernels at sizes like the
// run's, and the exchange of the run between its ranks. A second where every rank has a core; the sizes are capped so that neither time
// nor memory grows with the model.
//
// All ranks measure at once, since they share memory and perhaps cores, and the slowest counts. Means, not best runs: where
// ranks share a core their turns are part of the rate.

package import DenseKernels
package import Exchange
import Foundation
import MeshLayout
package import Planning
package import ProcessMesh

/// Sizes that the kernels of a run meet.
package struct ProbedSizes: Codable, Equatable, Sendable {
  /// Tokens of a microbatch.
  package var rowCount: Int
  package var width: Int
  package var mlpWidth: Int
  package var headWidth: Int
  /// Tokens that attend to each other.
  package var tokenCount: Int
  package var precision: ProductPrecision

  package init(_ sizes: WorkloadSizes, precision: ProductPrecision) {
    let network = sizes.network
    tokenCount = min(network.videoTokenCount + network.textTokenCount, Self.largestTokenCount)
    rowCount = min(sizes.rowCount, Self.largestTokenCount)
    width = min(network.width, 1_024)
    mlpWidth = min(network.mlpWidth, 4_096)
    headWidth = network.headWidth
    self.precision = precision
  }

  private static let largestTokenCount = 1_536

  /// Of the products that tell what weights take.
  var shortRowCount: Int { max(1, rowCount / 4) }
}

/// What kernels reach, in seconds for one of each.
package struct KernelTimes: Equatable, Sendable {
  /// For an operation of a product, and of one with a quarter of the rows.
  package var product: Double
  package var shortProduct: Double
  package var attention: Double
  /// For a byte of an elementwise operation, and of an optimizer.
  package var elementwise: Double
  package var optimizer: Double
  /// For an operation of the tape whose kernels have next to nothing to do.
  package var tapeOperation: Double

  var all: [Double] {
    get { [product, shortProduct, attention, elementwise, optimizer, tapeOperation] }
    set {
      (product, shortProduct, attention) = (newValue[0], newValue[1], newValue[2])
      (elementwise, optimizer, tapeOperation) = (newValue[3], newValue[4], newValue[5])
    }
  }
}

package enum StepProbe {
  /// Of a job's ranks.
  ///
  /// - Parameter exchange: as the run exchanges gradients and parameters.
  /// - Collective: over the transport; sizes and configuration must agree.
  /// - Throws: what the transport throws.
  package static func measure(
    _ sizes: ProbedSizes, exchange: ExchangeConfiguration, on transport: any Transport
  ) throws -> StepRates {
    var kernels = try kernels(sizes) { try? transport.barrier() }
    kernels.all = try transport.allReduce(max: kernels.all)
    let links = try LinkProbe.measure(on: transport, repeatCount: 3)
    var rates = try exchanges(exchange, over: links, on: transport)
    rates.apply(kernels, sizes)
    return rates
  }

  /// What exchanges between the ranks take, and nothing else.
  ///
  /// - Parameters:
  ///   - configuration: how gradients and parameters are exchanged.
  ///   - links: as they were measured.
  /// - Collective: over the transport; configuration and links must agree.
  /// - Throws: what the transport throws.
  package static func exchanges(
    _ configuration: ExchangeConfiguration, over links: LinkProbe, on transport: any Transport
  ) throws -> StepRates {
    let onNode = transport.size / max(1, links.nodeCount)
    let inside = links.inside.map(Link.init)
    let between = links.between.map(Link.init)
    var rates = StepRates(
      productRate: .infinity, attentionRate: .infinity, memoryBandwidth: .infinity,
      inside: inside ?? between ?? .free, between: between ?? inside ?? .free,
      ranksPerNode: inside == nil ? 1 : max(1, onNode), codingSecondsPerByte: 0)
    let activations = try ExchangeProbe.measure(on: transport, link: rates.inside)
    rates.exchangeWait = activations.wait
    rates.packingSecondsPerByte = activations.secondsPerByte
    rates.codingSecondsPerByte = try codingSeconds(configuration, rates, transport)
    return rates
  }

  /// Of this process alone, with links of a machine, and what ranks wait for each other on it.
  package static func measure(
    _ sizes: ProbedSizes, links machine: MachineModel, rankCount: Int
  ) throws -> StepRates {
    var rates = StepRates(machine, .fp32, rankCount: rankCount)
    rates.apply(try kernels(sizes) {}, sizes)
    return rates
  }

  /// - Parameter meet: called before each kernel, so that all ranks run the same.
  private static func kernels(
    _ sizes: ProbedSizes, meet: () -> Void
  ) throws -> KernelTimes {
    let probe = KernelProbe(sizes)
    func measured(_ kernel: () -> (unitCount: Double, run: () -> Void)) -> Double {
      let (unitCount, run) = kernel()
      meet()
      return secondsPerRun(run) / unitCount
    }
    let tape = try TapeProbe()
    return KernelTimes(
      product: measured { probe.products(rowCount: sizes.rowCount) },
      shortProduct: measured { probe.products(rowCount: sizes.shortRowCount) },
      attention: measured(probe.attention), elementwise: measured(probe.elementwise),
      optimizer: measured(probe.optimizer),
      tapeOperation: measured { (tape.operationCount, tape.run) })
  }

  /// The middle one of three means over at least 20 ms, after a run that warms caches and pages; the only one where a run is
  /// long.
  private static func secondsPerRun(_ run: () -> Void) -> Double {
    run()
    let clock = ContinuousClock()
    func mean() -> Double {
      let start = clock.now
      var count = 0
      var elapsed = Duration.zero
      while count < 2 || elapsed < .milliseconds(20) {
        run()
        count += 1
        elapsed = clock.now - start
      }
      return elapsed / .seconds(1) / Double(count)
    }
    let first = mean()
    return first > 0.1 ? first : [first, mean(), mean()].sorted()[1]
  }

  /// What the exchange takes for a sent byte beside the link.
  private static func codingSeconds(
    _ configuration: ExchangeConfiguration, _ rates: StepRates, _ transport: any Transport
  ) throws -> Double {
    guard transport.size > 1 else { return 0 }
    let exchange = BucketExchange(transport: transport, configuration: configuration)
    // As cold as those of a run.
    let partition = ShardPartition(
      count: KernelProbe.coldByteCount / 8, shardCount: transport.size)
    let flat = Buffer<Float>(zeroed: partition.count)
    flat.fill(with: 0.37)
    let own = partition.range(of: transport.rank).count
    let shard = Buffer<Float>(zeroed: own)
    let clock = ContinuousClock()
    var seconds: [Double] = []
    for _ in 0..<4 {
      try transport.barrier()
      seconds.append(
        try clock.measure {
          try exchange.reduceScatter(flat, partition: partition, into: shard)
          try exchange.allGather(shard, partition: partition, into: flat)
        } / .seconds(1))
    }
    // The first run takes memory; of the others the middle one.
    let slowest = try transport.allReduce(max: Array(seconds.dropFirst())).sorted()[1]
    let peerCount = Double(transport.size - 1)
    let byteCount = 4 * (Double(partition.count - own) + Double(own) * peerCount)
    let bucketCount = Double(max(1, 4 * partition.count / configuration.bucketByteCount))
    let sending = rates.sendSeconds(
      byteCount: byteCount, messageCount: 2 * peerCount * bucketCount,
      groupSize: transport.size)
    return try transport.allReduce(max: [max(0, slowest - sending) / byteCount])[0]
  }
}

extension Link {
  fileprivate init(_ rates: LinkRates) {
    self.init(latency: rates.latency, secondsPerByte: 1 / rates.bandwidth)
  }
}

extension StepRates {
  /// Takes over what kernels were found to reach.
  fileprivate mutating func apply(_ kernels: KernelTimes, _ sizes: ProbedSizes) {
    (productRate, attentionRate) = (1 / kernels.product, 1 / kernels.attention)
    memoryBandwidth = 1 / kernels.optimizer
    // Of r rows an operation takes 1 / p + 2 w / r, as its share of the weights' elements is 1 / 2 r.
    let (whole, short) = (2 / Double(sizes.rowCount), 2 / Double(sizes.shortRowCount))
    if short > whole {
      weightSecondsPerByte = max(0, (kernels.shortProduct - kernels.product) / (short - whole))
      // Where rows hardly matter, half of the time is still the rows'.
      weightSecondsPerByte = min(weightSecondsPerByte, kernels.product / 2 / whole)
      productRate = 1 / (kernels.product - whole * weightSecondsPerByte)
    }
    elementwiseSecondsPerByte = kernels.elementwise
    tapeOperationSeconds = kernels.tapeOperation
  }
}
