// What the exchange keeps on any transport: sums bit for bit those of the serial tree, gathers
// exact, norms independent of the number of ranks.

import Basics
import DenseKernels
import Exchange
import MeshLayout
import ProcessMesh

package let exchangeChecks: [MeshCheck] = [
  MeshCheck("reduce-scatter equals the serial tree sum bit for bit", checkReduceScatter),
  MeshCheck("all-gather brings every shard to every rank", checkAllGather),
  MeshCheck("all-gather of differences is exact, whatever bases ranks hold", checkDeltaGather),
  MeshCheck("exchanges beside other work bring what exchanges alone bring", checkWorkBeside),
  MeshCheck("uncompressed exchange traffic is what the formula says", checkExchangeTraffic),
  MeshCheck("the global norm has the bits of one rank", checkGlobalNorm),
]

/// No element, fewer blocks than ranks, a ragged end, several buckets.
private let vectorCounts = [0, 1, 4_097, 5 * 4_096, 60_013]

func configurations() -> [ExchangeConfiguration] {
  ExchangeConfiguration.Coding.allCases.map {
    ExchangeConfiguration(codec: $0, bucketByteCount: 64 << 10)
  }
}

/// The gradient-like vector of `rank`.
package func gradientLikeVector(_ count: Int, of rank: Int) -> [Float] {
  RandomStream(seed: 5, purpose: .tests, step: count, sample: rank).normals(count: count)
    .map { $0 * 0.01 }
}

private func checkReduceScatter(_ transport: any Transport) throws {
  for count in vectorCounts {
    let partition = ShardPartition(count: count, shardCount: transport.size)
    let own = partition.range(of: transport.rank)
    let expected = treeReduce(
      count: transport.size, operand: { Array(gradientLikeVector(count, of: $0)[own]) },
      combine: { left, right in zip(left, right).map { $0 + $1 } })
    let gradients = gradientLikeVector(count, of: transport.rank)
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

private func checkAllGather(_ transport: any Transport) throws {
  for count in vectorCounts {
    let partition = ShardPartition(count: count, shardCount: transport.size)
    let whole = gradientLikeVector(count, of: 77)
    let shard = Buffer(whole[partition.range(of: transport.rank)])
    for configuration in configurations() {
      let exchange = BucketExchange(transport: transport, configuration: configuration)
      let flat = Buffer([Float](repeating: .nan, count: count))
      try exchange.allGather(shard, partition: partition, into: flat)
      try require(flat, whole, "\(count) elements, codec \(configuration.codec)")
    }
  }
}

/// Several are started, other collectives of the group and of the line itself come between, and they are waited
/// for in another order.
private func checkWorkBeside(_ transport: any Transport) throws {
  let line = try transport.split(color: 0, key: transport.rank)
  for configuration in configurations() {
    let exchange = BucketExchange(transport: line, configuration: configuration)
    let counts = [60_013, 0, 5 * 4_096, 33_333]
    let partitions = counts.map { ShardPartition(count: $0, shardCount: line.size) }
    let sums = counts.map { count in
      treeReduce(
        count: line.size, operand: { gradientLikeVector(count, of: $0) },
        combine: { left, right in zip(left, right).map { $0 + $1 } })
    }
    var runs: [BucketRun] = []
    var shards: [Buffer<Float>] = []
    var wholes: [Buffer<Float>] = []
    for (count, partition) in zip(counts, partitions) {
      let own = partition.range(of: line.rank)
      let shard = Buffer([Float](repeating: .nan, count: own.count))
      runs.append(
        try exchange.startReduceScatter(
          Buffer(gradientLikeVector(count, of: line.rank)), partition: partition, into: shard))
      let whole = Buffer([Float](repeating: .nan, count: count))
      runs.append(
        try exchange.startAllGather(
          Buffer(gradientLikeVector(count, of: 77)[own]), partition: partition, into: whole))
      shards.append(shard)
      wholes.append(whole)
      // Ranks move on at their own pace.
      for _ in 0..<3 * line.rank { try exchange.advance() }
      try transport.barrier()
    }
    try runs[4].finish()
    try require(wholes[0], gradientLikeVector(counts[0], of: 77), "started first, waited for last")
    guard runs[0...4].allSatisfy(\.isFinished) else {
      throw CheckFailure(
        description: "an exchange that was started before one that is finished is not")
    }
    // What is alone waits for all that was started.
    let flat = Buffer([Float](repeating: .nan, count: counts[3]))
    try exchange.allGather(
      Buffer(gradientLikeVector(counts[3], of: 78)[partitions[3].range(of: line.rank)]),
      partition: partitions[3], into: flat)
    try require(flat, gradientLikeVector(counts[3], of: 78), "alone, \(configuration.codec)")
    for (index, count) in counts.enumerated() {
      let place = "\(count) elements, \(configuration.codec)"
      try require(shards[index], Array(sums[index][partitions[index].range(of: line.rank)]), place)
      try require(wholes[index], gradientLikeVector(count, of: 77), place)
    }
    for run in runs.reversed() { try run.finish() }
  }
}

private func checkDeltaGather(_ transport: any Transport) throws {
  let count = 60_013
  let partition = ShardPartition(count: count, shardCount: transport.size)
  let old = gradientLikeVector(count, of: 77)
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
    throw CheckFailure(
      description:
        "differences took \(wireByteCounts[0]) bytes, all words \(wireByteCounts[1])")
  }
}

private func checkGlobalNorm(_ transport: any Transport) throws {
  for count in vectorCounts {
    let whole = gradientLikeVector(count, of: 78)
    let expected = treeReduce(blockSquares(of: Buffer(whole)), combine: +) ?? 0
    let border = count / 3 / normBlockLength * normBlockLength
    for units in [[0..<count], [0..<border, border..<count]] {
      let sharding = UnitSharding(units: units, shardCount: transport.size)
      let shard = Buffer(
        sharding.stretches(of: transport.rank).flatMap { Array(whole[$0.flat]) })
      let norm = try globalSquaredNorm(shard: shard, sharding: sharding, transport: transport)
      if norm.bitPattern != expected.bitPattern {
        throw CheckFailure(
          description:
            "\(count) elements, units \(units): squared norm \(norm), one rank \(expected)")
      }
    }
  }
}

func require(_ actual: Buffer<Float>, _ expected: [Float], _ what: String) throws {
  for index in expected.indices where actual[index].bitPattern != expected[index].bitPattern {
    throw CheckFailure(
      description:
        "\(what): element \(index) is \(actual[index]), not \(expected[index])")
  }
}

private func checkExchangeTraffic(_ transport: any Transport) throws {
  let (rank, size) = (transport.rank, transport.size)
  if size == 1 { return }
  let bucketByteCount = 64 << 10
  for count in vectorCounts {
    let partition = ShardPartition(count: count, shardCount: size)
    let recorder = RecordingTransport(transport)
    let exchange = BucketExchange(
      transport: recorder,
      configuration: ExchangeConfiguration(codec: .off, bucketByteCount: bucketByteCount))
    let flat = Buffer(gradientLikeVector(count, of: rank))
    let shard = Buffer<Float>(zeroed: partition.range(of: rank).count)
    try exchange.reduceScatter(flat, partition: partition, into: shard)
    try exchange.allGather(shard, partition: partition, into: flat)
    let statistics = exchange.statistics.take()

    // A rank sends all but its own shard to be summed, then its own shard to all others; every
    // message of a piece that has elements carries a header of 44 bytes.
    let pieceWordCount = max(bucketByteCount / 4 / size, 4_096)
    func pieceCount(_ shard: Int) -> Int {
      (partition.range(of: shard).count + pieceWordCount - 1) / pieceWordCount
    }
    let own = partition.range(of: rank).count
    let others = (0..<size).filter { $0 != rank }
    let (gradients, parameters) = (statistics[.gradients], statistics[.parameters])
    try expectEqual(gradients.rawByteCount, 4 * (count - own), "\(count) elements")
    try expectEqual(gradients.messageCount, others.reduce(0) { $0 + pieceCount($1) })
    try expectEqual(parameters.rawByteCount, 4 * (size - 1) * own, "\(count) elements")
    try expectEqual(parameters.messageCount, (size - 1) * pieceCount(rank))
    for traffic in [gradients, parameters] {
      try expectEqual(traffic.wireByteCount, traffic.rawByteCount + 44 * traffic.messageCount)
    }
    try expectEqual(recorder.log.sentByteCount, statistics.total.wireByteCount, "on the transport")
  }
}
