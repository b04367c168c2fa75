import Compression
import DenseKernels
import MeshChecks
import MeshLayout
import ProcessMesh
import Testing

@testable import Exchange

struct BucketExchangeTests {
  @Test(arguments: exchangeChecks, [1, 2, 3, 4, 8])
  func `an exchange over threads passes`(_ check: MeshCheck, size: Int) throws {
    _ = try InProcessMesh.run(size: size) { try check.body($0) }
  }

  @Test(arguments: exchangeChecks)
  func `an exchange over nodes, where the automatic codec is measured, passes`(
    _ check: MeshCheck
  ) throws {
    _ = try InProcessMesh.run(size: 4, nodes: [0, 0, 1, 1]) { try check.body($0) }
  }

  @Test func `gradients take fewer bytes as planes`() throws {
    let count = 200_000
    let partition = ShardPartition(count: count, shardCount: 2)
    let ratios = try InProcessMesh.run(size: 2) { transport in
      let exchange = BucketExchange(
        transport: transport, configuration: ExchangeConfiguration(codec: .planes))
      let flat = Buffer(gradientLikeVector(count, of: transport.rank))
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
        let flat = Buffer(gradientLikeVector(count, of: transport.rank))
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
      let flat = Buffer(gradientLikeVector(count, of: transport.rank))
      let shard = Buffer<Float>(zeroed: partition.range(of: transport.rank).count)
      for _ in 0..<3 { try exchange.reduceScatter(flat, partition: partition, into: shard) }
      return wordCount
    }
    // Pieces of 4,096 words; a tree over 8 ranks has at most log2(8) + 2 partials alive.
    #expect(allocated.allSatisfy { $0 > 0 && $0 <= 5 * 4_096 }, "\(allocated)")
  }
}
