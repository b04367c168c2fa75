// One teach step on ranks that are threads, and every byte that left a rank in it: for comparing with formulas.

import Exchange
import MeshLayout
import ProcessMesh
import Testing

@testable import Training

/// What the ranks sent in a teach step.
struct TaughtStep: Sendable {
  /// Of one rank, by what its transport saw pass; agreements are taken off.
  struct Sent: Sendable {
    var byteCount = 0
    /// Of these, what left the node.
    var crossNodeByteCount = 0
    /// Operations of which something left the node.
    var crossNodeOperationCount = 0
  }

  /// By rank.
  let sent: [Sent]
  /// Of all ranks, by what the run says of itself: words, and with what goes in front of them.
  let rawByteCounts: [String: Int]
  let wireByteCounts: [String: Int]

  /// In front of every message of gradients and parameters stand so many bytes (MessageHeader.swift).
  static let frameByteCount = 44

  /// - Parameter nodes: the pretended node of every rank.
  init(_ configuration: RunConfiguration, shape: MeshShape, nodes: [Int]? = nil) throws {
    var configuration = configuration
    (configuration.teach.steps, configuration.exchange.codec) = (1, .off)
    let (sent, metrics) = try RunOnThreads.start(
      configuration, shape: shape, nodes: nodes
    ) { rank in
      let networks = rank.makeNetworks()
      let phase = TeachPhase(context: rank.context, networks: networks, batches: rank.batches)
      rank.log.removeAll()
      var entries: [TrafficLog.Entry] = []
      // Before the averages are gathered, which no step does.
      try phase.run(from: 0) { _, _ in entries = rank.log.entries }
      return try Self.sent(entries, besides: phase.optimizer.weights, of: shape)
    }
    self.sent = sent
    try #require(metrics.count == 1)
    func counts(_ suffix: String) -> [String: Int] {
      metrics[0].reduce(into: [:]) { counts, field in
        guard field.key.hasSuffix(suffix) else { return }
        counts[String(field.key.dropLast(suffix.count))] = field.value as? Int
      }
    }
    (rawByteCounts, wireByteCounts) = (counts("_raw_bytes"), counts("_wire_bytes"))
  }

  /// Takes the agreements of a step off: the sums of squares of the global norm, of which a rank tells the others of
  /// its replica 8 bytes for each 4,096 elements, and the report of the step, with which it ends.
  private static func sent(
    _ entries: [TrafficLog.Entry], besides weights: ShardedParameters, of shape: MeshShape
  ) throws -> Sent {
    let report = try #require(entries.last)
    var entries = entries.dropLast()
    #expect(report.name == "allGather" && report.groupSize == shape.rankCount)
    let replicaSize = shape.rankCount / shape[.dp]
    let leafCount = weights.stretches.reduce(0) { $0 + ($1.flat.count + 4095) / 4096 }
    let norm = (replicaSize - 1) * (frameByteCount + 8 * leafCount)
    let place = try #require(
      entries.lastIndex {
        $0.name == "allGather" && $0.groupSize == replicaSize && $0.sentByteCount == norm
      })
    entries.remove(at: place)
    return entries.reduce(into: Sent()) { sent, entry in
      sent.byteCount += entry.sentByteCount
      sent.crossNodeByteCount += entry.crossNodeByteCount
      sent.crossNodeOperationCount += entry.crossNodeByteCount > 0 ? 1 : 0
    }
  }
}
