// What one rank, one node and the links between them can do: the numbers that turn operations and bytes
// of a simulated step into seconds.
//
// A rank is one process with a fixed product rate, whatever else runs on its node. The link between nodes
// is one per node; the ranks of a node share it when they all talk at once, as they do in a step.

/// Time of a message: `latency + bytes · secondsPerByte`.
package struct Link: Codable, Equatable, Sendable {
  /// a, in seconds for a message.
  package var latency: Double
  /// b, in seconds for a byte.
  package var secondsPerByte: Double

  package init(latency: Double, secondsPerByte: Double) {
    self.latency = latency
    self.secondsPerByte = secondsPerByte
  }

  /// Nothing takes time: for closed forms without communication.
  package static let free = Link(latency: 0, secondsPerByte: 0)
}

/// How operands of products are read, which decides their rate.
package enum SimulatedPrecision: String, CaseIterable, Codable, Sendable {
  case fp32, bf16
}

package struct MachineModel: Codable, Equatable, Sendable {
  /// FLOP/s of a rank in large fp32 products.
  package var productRateFloat32 = 240e9
  /// FLOP/s of a rank in large products of bf16 operands.
  package var productRateBFloat16 = 450e9
  /// Share of the product rate that a whole training step reaches, in model operations.
  package var stepEfficiency = 0.7
  /// Bytes that a rank reads and writes in a second.
  package var memoryBandwidth = 40e9
  /// Seconds for a message inside a node.
  package var latencyInside = 2e-6
  /// Bytes that a rank sends in a second inside a node.
  package var bandwidthInside = 5e9
  /// Seconds that a rank loses at each exchange between two products, beside its messages.
  package var exchangeWait = 20e-6
  /// Bytes of activations that a rank packs into messages and out of them in a second.
  package var packingBandwidth = 8e9
  /// Bytes of gradients and parameters that a rank codes, checks, decodes and adds up in a second.
  package var codingBandwidth = 5e9
  /// Seconds for a message between nodes.
  package var latencyBetween = 5e-6
  /// Bytes that a node sends in a second.
  package var bandwidthBetween = 12.5e9
  /// Most ranks of a node.
  package var ranksPerNode = 16.0
  /// Bytes of a node that ranks may take.
  package var memoryPerNode = 128.0 * 1_073_741_824

  package init() {}

  package func productRate(_ precision: SimulatedPrecision) -> Double {
    stepEfficiency * (precision == .fp32 ? productRateFloat32 : productRateBFloat16)
  }

  package var linkInside: Link {
    Link(latency: latencyInside, secondsPerByte: 1 / bandwidthInside)
  }
  package var linkBetween: Link {
    Link(latency: latencyBetween, secondsPerByte: 1 / bandwidthBetween)
  }
  package var largestRankCountOfNode: Int { Int(ranksPerNode) }
}

/// One number of the machine: its name outside, its unit, what it does and where its default comes from.
package struct MachineOption: Sendable {
  package let key: String
  package let unit: String
  package let effect: String
  package let origin: String
  /// Smallest and largest value that makes sense.
  package let range: ClosedRange<Double>
  package let isWhole: Bool
  private let path: @Sendable (inout MachineModel, Double?) -> Double

  package func value(of machine: MachineModel) -> Double {
    var copy = machine
    return path(&copy, nil)
  }

  /// Sets the number, or says what is wrong with it.
  package func set(_ machine: inout MachineModel, _ value: Double) -> String? {
    guard range.contains(value) else {
      return "is \(value), it must be \(range.lowerBound) to \(range.upperBound) \(unit)"
    }
    if isWhole && value != value.rounded() { return "is \(value), it must be a whole number" }
    _ = path(&machine, value)
    return nil
  }

  private init(
    _ key: String, _ unit: String, _ range: ClosedRange<Double>, isWhole: Bool = false,
    effect: String, origin: String,
    path: @escaping @Sendable (inout MachineModel, Double?) -> Double
  ) {
    self.key = key
    self.unit = unit
    self.range = range
    self.isWhole = isWhole
    self.effect = effect
    self.origin = origin
    self.path = path
  }

  /// Reads or writes a stored property.
  private static func access(
    _ property: any WritableKeyPath<MachineModel, Double> & Sendable
  ) -> @Sendable (inout MachineModel, Double?) -> Double {
    { machine, value in
      if let value { machine[keyPath: property] = value }
      return machine[keyPath: property]
    }
  }

  /// All numbers of a machine; their names are the keys of a machine file.
  package static let all: [MachineOption] = [
    MachineOption(
      "productRateFloat32", "FLOP/s", 1e6...1e18, effect: "seconds of fp32 work of a rank",
      origin: "measured, sgemm 2048³ on one core of the reference machine (Zen 5)",
      path: access(\.productRateFloat32)),
    MachineOption(
      "productRateBFloat16", "FLOP/s", 1e6...1e18, effect: "seconds of bf16 work of a rank",
      origin: "measured, bf16 tiles on one core of the reference machine",
      path: access(\.productRateBFloat16)),
    MachineOption(
      "stepEfficiency", "of the product rate", 0.01...1,
      effect: "share of it that a whole step reaches",
      origin: "measured, bench-s training step: Benchmarks/results/speed_zen5-2core_2026-11-21.md",
      path: access(\.stepEfficiency)),
    MachineOption(
      "memoryBandwidth", "B/s", 1e6...1e15, effect: "seconds of an optimizer's update",
      origin: "measured, triad on one core of the reference machine (40–58 GB/s)",
      path: access(\.memoryBandwidth)),
    MachineOption(
      "latencyInside", "s", 0...1, effect: "cost of each message inside a node",
      origin: "assumed, shared memory", path: access(\.latencyInside)),
    MachineOption(
      "bandwidthInside", "B/s of a rank", 1e3...1e15, effect: "cost of bytes inside a node",
      origin: "assumed, two copies through shared memory", path: access(\.bandwidthInside)),
    MachineOption(
      "exchangeWait", "s", 0...10,
      effect: "cost of each exchange inside a block or between stages, beside its messages",
      origin: "assumed; `w2svd-worker bench collectives` measures it", path: access(\.exchangeWait)),
    MachineOption(
      "packingBandwidth", "B/s of a rank", 1e6...1e15,
      effect: "cost of bytes of activations beside the link, without --simulate",
      origin: "assumed; `w2svd-worker bench collectives` measures it",
      path: access(\.packingBandwidth)),
    MachineOption(
      "codingBandwidth", "B/s of a rank", 1e6...1e15,
      effect: "cost of bytes of gradients and parameters beside the link, without --simulate",
      origin: "assumed; `w2svd-worker bench collectives` measures it",
      path: access(\.codingBandwidth)),
    MachineOption(
      "latencyBetween", "s", 0...10, effect: "cost of each message between nodes",
      origin: "assumed, 100 Gb/s Ethernet or InfiniBand", path: access(\.latencyBetween)),
    MachineOption(
      "bandwidthBetween", "B/s of a node", 1e3...1e15, effect: "cost of bytes between nodes",
      origin: "assumed, 100 Gb/s a node, shared by its ranks", path: access(\.bandwidthBetween)),
    MachineOption(
      "ranksPerNode", "ranks", 1...1_024, isWhole: true,
      effect: "most ranks of a node; fewer are placed where memory does not suffice",
      origin: "assumed", path: access(\.ranksPerNode)),
    MachineOption(
      "memoryPerNode", "B", 1e6...1e15, effect: "decides which layouts fit",
      origin: "assumed, 128 GiB", path: access(\.memoryPerNode)),
  ]
}
