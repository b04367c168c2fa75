// Decides which rank holds what, before anything is allocated. This version knows one placement: all
// ranks hold W, adapter and generator, and a shard of the optimizer state and averages of each.

package import MeshLayout

/// What the coordinator decided; the same on every rank.
package struct RunPlan: Sendable {
  package let shape: MeshShape
  /// For people: layout and why, then bytes per rank.
  package let text: String
}

package enum Coordinator {
  /// The placement of a run over `rankCount` ranks.
  package static func plan(_ configuration: RunConfiguration, rankCount: Int) -> RunPlan {
    let shape = MeshShape([.zero: rankCount])
    return RunPlan(
      shape: shape,
      text: "mesh: \(shape), colocated: every rank holds all weights and 1/\(rankCount) of the "
        + "optimizer state and averages\n")
  }
}
