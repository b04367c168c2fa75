// What a rank does in a second, measured at the start: products, attention and elementwise kernels at sizes like the
// run's, and the exchange of the run between its ranks. Less than a second; the sizes are capped so that neither time
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

  var all: [Double] {
    get { [product, shortProduct, attention, elementwise, optimizer] }
    set {
      (product, shortProduct, attention) = (newValue[0], newValue[1], newValue[2])
      (elementwise, optimizer) = (newValue[3], newValue[4])
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
    var kernels = kernels(sizes) { try? transport.barrier() }
    kernels.all = try transport.allReduce(max: kernels.all)
    let links = try LinkProbe.measure(on: transport, repeatCount: 3)
    let onNode = transport.size / max(1, links.nodeCount)
    let inside = links.inside.map(Link.init)
    let between = links.between.map(Link.init)
    var rates = StepRates(
      kernels, rowCount: sizes.rowCount, inside: inside ?? between ?? .free,
      between: between ?? inside ?? .free, ranksPerNode: inside == nil ? 1 : max(1, onNode))
    rates.codingSecondsPerByte = try codingSeconds(exchange, rates, transport)
    rates.exchangeWait = try ExchangeProbe.measure(on: transport, latency: rates.inside.latency)
    return rates
  }

  /// Of this process alone, with links of a machine, and what ranks wait for each other on it.
  package static func measure(
    _ sizes: ProbedSizes, links machine: MachineModel, rankCount: Int
  ) -> StepRates {
    let kernels = kernels(sizes) {}
    var paper = StepRates(machine, .fp32, rankCount: rankCount)
    paper.memoryBandwidth = 1 / kernels.optimizer
    paper.codingSecondsPerByte = StepRates.codingPassCount * kernels.optimizer
    var rates = StepRates(
      kernels, rowCount: sizes.rowCount, inside: paper.inside, between: paper.between,
      ranksPerNode: paper.ranksPerNode)
    rates.codingSecondsPerByte = paper.codingSecondsPerByte
    rates.exchangeWait = paper.exchangeWait
    return rates
  }

  /// - Parameter meet: called before each kernel, so that all ranks run the same.
  private static func kernels(_ sizes: ProbedSizes, meet: () -> Void) -> KernelTimes {
    let probe = KernelProbe(sizes)
    func measured(_ kernel: () -> (unitCount: Double, run: () -> Void)) -> Double {
      let (unitCount, run) = kernel()
      meet()
      return secondsPerRun(run) / unitCount
    }
    return KernelTimes(
      product: measured { probe.products(rowCount: sizes.rowCount) },
      shortProduct: measured { probe.products(rowCount: max(1, sizes.rowCount / 4)) },
      attention: measured(probe.attention), elementwise: measured(probe.elementwise),
      optimizer: measured(probe.optimizer))
  }

  /// A mean over at least two runs and 40 ms, after one that warms caches and pages.
  private static func secondsPerRun(_ run: () -> Void) -> Double {
    run()
    let clock = ContinuousClock()
    let start = clock.now
    var count = 0
    var elapsed = Duration.zero
    while count < 2 || elapsed < .milliseconds(40) {
      run()
      count += 1
      elapsed = clock.now - start
    }
    return elapsed / .seconds(1) / Double(count)
  }

  /// What the exchange takes for a sent byte beside the link.
  private static func codingSeconds(
    _ configuration: ExchangeConfiguration, _ rates: StepRates, _ transport: any Transport
  ) throws -> Double {
    guard transport.size > 1 else { return 0 }
    let exchange = BucketExchange(transport: transport, configuration: configuration)
    let partition = ShardPartition(count: 1 << 19, shardCount: transport.size)
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
  fileprivate init(
    _ kernels: KernelTimes, rowCount: Int, inside: Link, between: Link, ranksPerNode: Int
  ) {
    self.init(
      productRate: 1 / kernels.product, attentionRate: 1 / kernels.attention,
      memoryBandwidth: 1 / kernels.optimizer, inside: inside, between: between,
      ranksPerNode: ranksPerNode, codingSecondsPerByte: 0)
    // Time of an operation with a quarter of the rows: 1 + 3 w of the whole.
    weightShare = min(max((kernels.shortProduct / kernels.product - 1) / 3, 0), 1)
    self.rowCount = rowCount
    elementwiseSecondsPerByte = kernels.elementwise
  }
}
