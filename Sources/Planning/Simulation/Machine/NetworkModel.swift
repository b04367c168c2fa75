// What collectives of one hop cost by the alpha-beta model, in seconds: every member sends each piece straight to its
// owner, which costs what pairwise algorithms cost.
//
// Source: specs of distributed systems, §2 (Thakur, Rabenseifner, Gropp 2005).

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
