// What collectives cost by the alpha-beta model, in seconds: a per message, b per byte, g per byte added.
//
// p ranks, m bytes. `m` is the input of a reduce-scatter, the result of an all-gather, what a rank
// holds before an all-to-all.
// Source: specs of distributed systems, §2 (Thakur, Rabenseifner, Gropp 2005). Our exchange sends each
// piece straight to its owner ("one hop"), which costs what the pairwise algorithms cost.

/// Closed forms over one kind of link.
package enum CollectiveModel {
  /// ⌈log₂ p⌉.
  package static func logarithm(_ rankCount: Int) -> Int {
    rankCount <= 1 ? 0 : Int.bitWidth - (rankCount - 1).leadingZeroBitCount
  }

  /// (p − 1) a + (p − 1)/p m b: all-to-all, all-gather, and reduce-scatter without its sums.
  package static func oneHop(rankCount p: Int, byteCount m: Double, link: Link) -> Double {
    Double(p - 1) * link.latency + Double(p - 1) / Double(p) * m * link.secondsPerByte
  }

  /// One hop and the sums: (p − 1) a + (p − 1)/p m (b + g).
  package static func reduceScatter(
    rankCount p: Int, byteCount m: Double, link: Link, sumSecondsPerByte g: Double = 0
  ) -> Double {
    let summed = Link(latency: link.latency, secondsPerByte: link.secondsPerByte + g)
    return oneHop(rankCount: p, byteCount: m, link: summed)
  }

  /// 2 (p − 1) a + 2 (p − 1)/p m b + (p − 1)/p m g: ring, or one hop both ways.
  package static func ringAllReduce(
    rankCount p: Int, byteCount m: Double, link: Link, sumSecondsPerByte g: Double = 0
  ) -> Double {
    reduceScatter(rankCount: p, byteCount: m, link: link, sumSecondsPerByte: g)
      + oneHop(rankCount: p, byteCount: m, link: link)
  }

  /// log₂ p (a + m b + m g).
  package static func doublingAllReduce(
    rankCount p: Int, byteCount m: Double, link: Link, sumSecondsPerByte g: Double = 0
  ) -> Double {
    Double(logarithm(p)) * (link.latency + m * (link.secondsPerByte + g))
  }

  /// 2 log₂ p a + 2 (p − 1)/p m b + (p − 1)/p m g (Rabenseifner).
  package static func halvingAllReduce(
    rankCount p: Int, byteCount m: Double, link: Link, sumSecondsPerByte g: Double = 0
  ) -> Double {
    2 * Double(logarithm(p)) * link.latency
      + Double(p - 1) / Double(p) * m * (2 * link.secondsPerByte + g)
  }
}

/// Ranks that talk with each other, and how they lie over nodes: the same number on each.
package struct RankGroup: Equatable, Hashable, Sendable {
  package let size: Int
  /// Members on one node; divides the size.
  package let perNode: Int

  package init(size: Int, perNode: Int) {
    self.size = size
    self.perNode = perNode
  }
}

/// Collectives of one rank's groups on a machine; nothing is sent for no bytes.
package struct NetworkModel: Equatable, Sendable {
  package let inside: Link
  /// As one rank sees it while all ranks of its node use it.
  package let between: Link

  /// - Parameter ranksOnNode: ranks that share the link of a node.
  package init(_ machine: MachineModel, ranksOnNode: Int) {
    inside = machine.linkInside
    between = Link(
      latency: machine.latencyBetween,
      secondsPerByte: Double(ranksOnNode) / machine.bandwidthBetween)
  }

  package init(inside: Link, between: Link) {
    self.inside = inside
    self.between = between
  }

  /// Every member sends its part of `m` bytes to its owner, in one hop: tokens against heads, an all-gather of `m` bytes,
  /// or a reduce-scatter of as many, sums apart.
  package func allToAll(_ group: RankGroup, byteCount m: Double) -> Double {
    if m == 0 { return 0 }
    let outside = group.size - group.perNode
    let piece = m / Double(group.size)
    return Double(group.perNode - 1) * (inside.latency + piece * inside.secondsPerByte)
      + Double(outside) * (between.latency + piece * between.secondsPerByte)
  }

  /// A reduce-scatter and an all-gather.
  package func allReduce(_ group: RankGroup, byteCount m: Double) -> Double {
    2 * allToAll(group, byteCount: m)
  }

  /// One message.
  package func message(byteCount m: Double, crossesNodes: Bool) -> Double {
    let link = crossesNodes ? between : inside
    return link.latency + m * link.secondsPerByte
  }
}
