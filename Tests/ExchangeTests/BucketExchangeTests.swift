import Compression
import DenseKernels
import MeshChecks
import MeshLayout
import ProcessMesh
import Synchronization
import Testing

@testable import Exchange

struct BucketExchangeTests {
  @Test(arguments: [1, 2, 3, 4, 8])
  func `reduce-scatter equals the serial tree sum bit for bit`(size: Int) throws {
    _ = try InProcessMesh.run(size: size) { try ExchangeChecks.checkReduceScatter($0) }
  }

  @Test(arguments: [1, 2, 3, 4, 8])
  func `all-gather brings every shard to every rank`(size: Int) throws {
    _ = try InProcessMesh.run(size: size) { try ExchangeChecks.checkAllGather($0) }
  }

  @Test(arguments: [1, 2, 3, 4, 8])
  func `all-gather of differences is exact, whatever bases ranks hold`(size: Int) throws {
    _ = try InProcessMesh.run(size: size) { try ExchangeChecks.checkDeltaGather($0) }
  }

  @Test func `over nodes the automatic codec gives the same bits`() throws {
    _ = try InProcessMesh.run(size: 4, nodes: [0, 0, 1, 1]) { transport in
      try ExchangeChecks.checkReduceScatter(transport)
      try ExchangeChecks.checkAllGather(transport)
      try ExchangeChecks.checkDeltaGather(transport)
    }
  }

  @Test(arguments: [2, 3, 8], [5 * 4_096 + 3, 60_013])
  func `uncompressed traffic is what the formula says`(size: Int, count: Int) throws {
    let partition = ShardPartition(count: count, shardCount: size)
    let bucketByteCount = 64 << 10
    let statistics = try InProcessMesh.run(size: size) { transport in
      let exchange = BucketExchange(
        transport: transport,
        configuration: ExchangeConfiguration(codec: .off, bucketByteCount: bucketByteCount))
      let flat = Buffer(ExchangeChecks.vector(count, of: transport.rank))
      let shard = Buffer<Float>(zeroed: partition.range(of: transport.rank).count)
      try exchange.reduceScatter(flat, partition: partition, into: shard)
      try exchange.allGather(shard, partition: partition, into: flat)
      return exchange.statistics.take()
    }
    // A rank sends all but its own shard to be summed, then its own shard to all others; every
    // message of a piece that has elements carries a header.
    let pieceWordCount = max(bucketByteCount / 4 / size, 4_096)
    func pieceCount(_ shard: Int) -> Int {
      (partition.range(of: shard).count + pieceWordCount - 1) / pieceWordCount
    }
    for (rank, statistics) in statistics.enumerated() {
      let own = partition.range(of: rank).count
      let others = (0..<size).filter { $0 != rank }
      let gradients = statistics[.gradients]
      #expect(gradients.rawByteCount == 4 * (count - own))
      #expect(gradients.messageCount == others.reduce(0) { $0 + pieceCount($1) })
      let parameters = statistics[.parameters]
      #expect(parameters.rawByteCount == 4 * (size - 1) * own)
      #expect(parameters.messageCount == (size - 1) * pieceCount(rank))
      for traffic in [gradients, parameters] {
        #expect(
          traffic.wireByteCount
            == traffic.rawByteCount + MessageHeader.byteCount * traffic.messageCount)
      }
    }
    let total = statistics.reduce(0) { $0 + $1[.gradients].rawByteCount }
    #expect(total == 4 * (size - 1) * count, "(p - 1)/p of the vector from each of p ranks")
  }

  @Test func `gradients take fewer bytes as planes`() throws {
    let count = 200_000
    let partition = ShardPartition(count: count, shardCount: 2)
    let ratios = try InProcessMesh.run(size: 2) { transport in
      let exchange = BucketExchange(
        transport: transport, configuration: ExchangeConfiguration(codec: .planes))
      let flat = Buffer(ExchangeChecks.vector(count, of: transport.rank))
      let shard = Buffer<Float>(zeroed: partition.range(of: transport.rank).count)
      try exchange.reduceScatter(flat, partition: partition, into: shard)
      return exchange.statistics[.gradients].ratio
    }
    // 32 / (24 + H) with H = 2.6 bits of exponent is 1.20.
    #expect(ratios.allSatisfy { $0 > 1.18 && $0 < 1.22 }, "\(ratios)")
  }

  @Test(arguments: ExchangeConfiguration.Coding.allCases, [0, 43, 44, 1_000])
  func `a damaged message ends in a compression error that names the sender`(
    coding: ExchangeConfiguration.Coding, byte: Int
  ) throws {
    let count = 60_013
    let partition = ShardPartition(count: count, shardCount: 3)
    let error = #expect(throws: CompressionError.self) {
      _ = try InProcessMesh.run(size: 3) { transport in
        let damaging = TamperingTransport(transport) { message in
          var message = message
          if message.count > byte && transport.rank == 1 { message[byte] ^= 0x10 }
          return message
        }
        let exchange = BucketExchange(
          transport: damaging,
          configuration: ExchangeConfiguration(codec: coding, bucketByteCount: 64 << 10))
        let flat = Buffer(ExchangeChecks.vector(count, of: transport.rank))
        let shard = Buffer<Float>(zeroed: partition.range(of: transport.rank).count)
        try exchange.reduceScatter(flat, partition: partition, into: shard)
      }
    }
    #expect(error?.message.contains("bucket 0 from rank 1") == true, "\(String(describing: error))")
  }

  @Test func `memory is bounded by buckets, not by the vector`() throws {
    let count = 300_000
    let partition = ShardPartition(count: count, shardCount: 8)
    let allocated = try InProcessMesh.run(size: 8) { transport in
      var wordCount = 0
      let exchange = BucketExchange(
        transport: transport,
        configuration: ExchangeConfiguration(codec: .off, bucketByteCount: 64 << 10)
      ) { count in
        wordCount += count
        return Buffer(zeroed: count)
      }
      let flat = Buffer(ExchangeChecks.vector(count, of: transport.rank))
      let shard = Buffer<Float>(zeroed: partition.range(of: transport.rank).count)
      for _ in 0..<3 { try exchange.reduceScatter(flat, partition: partition, into: shard) }
      return wordCount
    }
    // Pieces of 4,096 words; a tree over 8 ranks has at most log2(8) + 2 partials alive.
    #expect(allocated.allSatisfy { $0 > 0 && $0 <= 5 * 4_096 }, "\(allocated)")
  }
}
