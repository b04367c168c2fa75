// What the exchange keeps on any transport: sums bit for bit those of the serial tree, gathers exact,
// norms independent of the number of ranks.

import Basics
import DenseKernels
import Exchange
import MeshLayout
package import ProcessMesh

/// Bodies to run on every rank of a group; they throw `ExchangeCheckFailure` with the first difference.
package enum ExchangeChecks {
  /// Each check by name, in the order in which to run them.
  package static let all: [(name: String, body: @Sendable (any Transport) throws -> Void)] = [
    ("reduce-scatter equals the serial tree sum bit for bit", checkReduceScatter),
    ("all-gather brings every shard to every rank", checkAllGather),
    ("all-gather of differences is exact, whatever bases ranks hold", checkDeltaGather),
    ("the global norm has the bits of one rank", checkGlobalNorm),
  ]

  /// No element, fewer blocks than ranks, a ragged end, several buckets.
  static let counts = [0, 1, 4_097, 5 * 4_096, 60_013]

  static func configurations() -> [ExchangeConfiguration] {
    ExchangeConfiguration.Coding.allCases.map {
      ExchangeConfiguration(codec: $0, bucketByteCount: 64 << 10)
    }
  }

  /// The gradient-like vector of `rank`.
  package static func vector(_ count: Int, of rank: Int) -> [Float] {
    RandomStream(seed: 5, purpose: .tests, step: count, sample: rank).normals(count: count)
      .map { $0 * 0.01 }
  }

  package static func checkReduceScatter(_ transport: any Transport) throws {
    for count in counts {
      let partition = ShardPartition(count: count, shardCount: transport.size)
      let own = partition.range(of: transport.rank)
      let expected = treeReduce(
        count: transport.size, operand: { Array(vector(count, of: $0)[own]) },
        combine: { left, right in zip(left, right).map { $0 + $1 } })
      let gradients = vector(count, of: transport.rank)
      let flat = Buffer(gradients)
      for configuration in configurations() {
        let exchange = BucketExchange(transport: transport, configuration: configuration)
        let shard = Buffer([Float](repeating: .nan, count: own.count))
        for turn in 0..<2 {
          try exchange.reduceScatter(flat, partition: partition, into: shard)
          try require(
            shard, expected, "turn \(turn), \(count) elements, codec \(configuration.codec)")
        }
        try require(flat, gradients, "the input of \(count) elements")
      }
    }
  }

  package static func checkAllGather(_ transport: any Transport) throws {
    for count in counts {
      let partition = ShardPartition(count: count, shardCount: transport.size)
      let whole = vector(count, of: 77)
      let shard = Buffer(whole[partition.range(of: transport.rank)])
      for configuration in configurations() {
        let exchange = BucketExchange(transport: transport, configuration: configuration)
        let flat = Buffer([Float](repeating: .nan, count: count))
        try exchange.allGather(shard, partition: partition, into: flat)
        try require(flat, whole, "\(count) elements, codec \(configuration.codec)")
      }
    }
  }

  package static func checkDeltaGather(_ transport: any Transport) throws {
    let count = 60_013
    let partition = ShardPartition(count: count, shardCount: transport.size)
    let old = vector(count, of: 77)
    let new = old.map { $0 * 1.000_1 }
    let shard = Buffer(new[partition.range(of: transport.rank)])
    var wireByteCounts: [Int] = []
    for isCommon in [true, false] {
      let exchange = BucketExchange(
        transport: transport,
        configuration: ExchangeConfiguration(codec: .planes, bucketByteCount: 64 << 10))
      let flat = Buffer(old)
      if !isCommon && transport.rank == transport.size - 1 { flat[count / 2] = -0.0 }
      try exchange.allGather(
        shard, partition: partition, into: flat, kind: .movingAverages, flatIsBase: true)
      try require(flat, new, "base \(isCommon ? "common" : "not common")")
      wireByteCounts.append(exchange.statistics[.movingAverages].wireByteCount)
    }
    if transport.size > 1 && wireByteCounts[0] * 10 > wireByteCounts[1] * 9 {
      throw ExchangeCheckFailure(
        "differences took \(wireByteCounts[0]) bytes, all words \(wireByteCounts[1])")
    }
  }

  package static func checkGlobalNorm(_ transport: any Transport) throws {
    for count in counts {
      let partition = ShardPartition(count: count, shardCount: transport.size)
      let whole = vector(count, of: 78)
      let expected = treeReduce(blockSquares(of: Buffer(whole)), combine: +) ?? 0
      let shard = Buffer(whole[partition.range(of: transport.rank)])
      let norm = try globalSquaredNorm(shard: shard, partition: partition, transport: transport)
      if norm.bitPattern != expected.bitPattern {
        throw ExchangeCheckFailure("\(count) elements: squared norm \(norm), one rank \(expected)")
      }
    }
  }

  private static func require(_ actual: Buffer<Float>, _ expected: [Float], _ what: String) throws {
    for index in expected.indices where actual[index].bitPattern != expected[index].bitPattern {
      throw ExchangeCheckFailure(
        "\(what): element \(index) is \(actual[index]), not \(expected[index])")
    }
  }
}

/// The first difference that a check found.
package struct ExchangeCheckFailure: Error, CustomStringConvertible {
  package let description: String

  init(_ description: String) { self.description = description }
}
