// What messages cost here: latency and bytes a second of the links inside a node and between nodes, fitted
// to timed all-to-alls, T = (p − 1) a + (p − 1) m b for m bytes to each of p − 1 peers.
//
// a is the time of small messages, b the slope to large ones; both from the fastest of several runs, each as long
// as its slowest rank. Ranks that share a core measure their turns too.

/// One kind of link.
package struct LinkRates: Codable, Equatable, Sendable {
  /// Seconds for a message.
  package let latency: Double
  /// Bytes that a rank sends in a second.
  package let bandwidth: Double
}

/// Links of a job.
package struct LinkProbe: Codable, Equatable, Sendable {
  package let rankCount: Int
  package let nodeCount: Int
  /// Nil with one rank a node.
  package let inside: LinkRates?
  /// Between ranks of the same place on each node, all nodes' ranks at once; nil on one node.
  package let between: LinkRates?

  package static let smallByteCount = 64
  package static let largeByteCount = 1 << 20

  /// Times both kinds of links.
  ///
  /// - Parameter repeatCount: timed runs of each size. Default: 10.
  /// - Collective: over the group.
  /// - Throws: what the transport throws.
  package static func measure(
    on transport: any Transport, repeatCount: Int = 10
  ) throws -> LinkProbe {
    let leader = (0..<transport.size).first { transport.isSameNode($0) } ?? transport.rank
    let node = try transport.split(color: leader, key: transport.rank)
    let peers = try transport.split(color: node.rank, key: leader)
    let nodeCount = try transport.allReduce(max: peers.size)
    return LinkProbe(
      rankCount: transport.size, nodeCount: nodeCount,
      inside: try rates(node, transport, repeatCount),
      between: try rates(peers, transport, repeatCount))
  }

  /// Of the group with the most ranks, as slow as the slowest group.
  private static func rates(
    _ group: any Transport, _ world: any Transport, _ repeatCount: Int
  ) throws -> LinkRates? {
    let isAlone = try world.allReduce(max: group.size) == 1
    let small = try seconds(group, world, byteCount: smallByteCount, repeatCount)
    let large = try seconds(group, world, byteCount: largeByteCount, repeatCount)
    if isAlone { return nil }
    let bytes = Double(largeByteCount - smallByteCount)
    return LinkRates(latency: small, bandwidth: bytes / max(large - small, 1e-9))
  }

  /// Seconds for each peer of an all-to-all, the least of the runs.
  private static func seconds(
    _ group: any Transport, _ world: any Transport, byteCount: Int, _ repeatCount: Int
  ) throws -> Double {
    let payload = [UInt8](repeating: 7, count: byteCount)
    let clock = ContinuousClock()
    var runs: [Double] = []
    for _ in 0..<max(1, repeatCount) + 1 {
      try world.barrier()
      let seconds =
        try clock.measure {
          _ = try group.allToAll(
            (0..<group.size).map { $0 == group.rank ? [] : payload })
        } / .seconds(1)
      runs.append(seconds / Double(max(1, group.size - 1)))
    }
    // The first run opens connections.
    return try world.allReduce(max: Array(runs.dropFirst())).min() ?? 0
  }
}
