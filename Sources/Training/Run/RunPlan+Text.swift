// A plan for people: the layout and why, then bytes per rank, operations, words.

import Evaluation
import Foundation
package import MeshLayout
package import Planning

extension RunPlan {
  /// What `plan.txt` holds and `--dry-run` prints.
  package var text: String {
    var lines = ["mesh: \(shape); \(reason)", ""]
    lines += memoryTable
    lines.append("")
    for (index, phase) in costs.phases.enumerated() {
      lines += [line(of: phase, times.indices.contains(index) ? times[index] : nil)]
      lines += roleLines(of: phase)
    }
    if let rates { lines += ["", "measured: " + rates.text] }
    if candidates.count > 1 { lines += ["", "legal layouts, the preferred first"] + layouts }
    if let memoryPerRank {
      lines.append(
        fits
          ? "every rank keeps within \(ReportText.bytes(memoryPerRank))"
          : "does not fit: a rank needs \(ReportText.bytes(processByteCountPerRank)), it may take "
            + "\(ReportText.bytes(memoryPerRank)); set model.recompute, batch.samples, more ranks or a "
            + "smaller model"
      )
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// Peaks by role and category, smallest and largest over ranks.
  private var memoryTable: [String] {
    let memory = costs.memory
    var lines = ["peak bytes per rank"]
    for role in PlannedRole.allCases {
      for category in PlannedCategory.allCases {
        let peaks = memory.map { $0.peakByteCount(role, category) }
        guard let largest = peaks.max(), let smallest = peaks.min(), largest > 0 else { continue }
        lines.append(Self.row("\(role.rawValue) \(category.rawValue)", smallest, largest))
      }
    }
    func add(_ name: String, _ peaks: [Int]) {
      lines.append(Self.row(name, peaks.min() ?? 0, peaks.max() ?? 0))
    }
    add("at the fullest moment", memory.map(\.totalPeakByteCount))
    add("blocks kept by size", processes.map(\.poolByteCount))
    add("messages under way", processes.map(\.messageByteCount))
    add("program and libraries", processes.map(\.programByteCount))
    if costs.sliceByteCount > 0 {
      add("partial sums of products", processes.map(\.sliceByteCount))
    }
    add("pieces of the heap", processes.map { _ in ProcessMemory.pieceByteCount })
    add("process", processes.map(\.byteCount))
    lines.append(
      Self.row("tensors over all ranks", costs.totalPeakByteCount, costs.totalPeakByteCount))
    return lines
  }

  /// One line for each layout: bytes, operations of the busiest rank, bytes on the wire and seconds of a step.
  private var layouts: [String] {
    let names = candidates.map { "  \($0.shape)" }
    let width = names.map(\.count).max() ?? 0
    return zip(names, candidates).map { name, candidate in
      var text =
        name.padding(toLength: max(28, width + 2), withPad: " ", startingAt: 0)
        + "\(ReportText.bytes(candidate.processByteCountPerRank)) per rank, "
        + "\(Self.format(candidate.operationCount / 1e12)) TFLOP on the busiest, "
        + "sent per step: \(phases { candidate.sentByteCountPerStep[$0].map(ReportText.bytes) })"
      if let seconds = candidate.seconds {
        let steps = phases { candidate.secondsPerStep?[$0].map(Self.format) }
        text += "; \(steps) s per step, \(Self.format(seconds)) s in all"
      }
      if candidate.shape == shape { text += " (taken)" }
      return text
    }
  }

  /// What is known of phases, by name, in their order.
  private func phases(_ value: (String) -> String?) -> String {
    costs.phases.compactMap { phase in value(phase.name).map { "\(phase.name) \($0)" } }
      .joined(separator: ", ")
  }

  private func line(of phase: PhaseCosts, _ time: StepTime?) -> String {
    let operations = phase.operationsPerStep.reduce(0, +)
    let peak = phase.memory.map(\.totalPeakByteCount).max() ?? 0
    let unit = phase.stepCount == 0 ? "pass" : "step"
    var text =
      "\(phase.name): \(ReportText.bytes(peak)) per rank, "
      + "\(Self.format(operations / 1e9)) GFLOP per \(unit)"
    if phase.stepCount > 0 {
      text += ", \(ReportText.bytes(phase.exchangeByteCountPerStep)) sent per step over all ranks"
    }
    if let time {
      text +=
        ", \(Self.format(time.seconds)) s per step (computing \(Self.format(time.computing)), optimizer "
        + "\(Self.format(time.optimizer)), updates \(Self.format(time.updates)), tokens "
        + "\(Self.format(time.tokens))), \(Self.format(time.seconds * Double(phase.stepCount))) s in all"
    }
    if phase.pipelineStretch > 1 {
      let idle = 100 * (1 - 1 / phase.pipelineStretch)
      text += "; stages wait for each other \(Self.format(idle)) % of a step"
    }
    return text
  }

  /// A line for each set of ranks of a phase with split roles.
  private func roleLines(of phase: PhaseCosts) -> [String] {
    roleShares(of: phase).map { share in
      let ranks =
        share.rankCount == 1
        ? "rank \(share.firstRank)"
        : "ranks \(share.firstRank) to \(share.firstRank + share.rankCount - 1)"
      let idle = String(format: "%.0f", 100 * share.idleShare)
      return
        "  \(share.role.rawValue) \(ranks): \(ReportText.bytes(share.peakByteCountPerRank)) per "
        + "rank, waiting for the other role \(idle) % of the time"
    }
  }

  private static func row(_ name: String, _ smallest: Int, _ largest: Int) -> String {
    let range =
      smallest == largest
      ? ReportText.bytes(largest) : "\(ReportText.bytes(smallest)) to \(ReportText.bytes(largest))"
    return "  " + name.padding(toLength: 26, withPad: " ", startingAt: 0) + range
  }

  private static func format(_ value: Double) -> String { value.shortText }
}

extension Double {
  fileprivate var shortText: String { String(format: self >= 100 ? "%.0f" : "%.3g", self) }
}

extension StepRates {
  /// For people.
  fileprivate var text: String {
    func giga(_ value: Double) -> String { (value / 1e9).shortText }
    func link(_ link: Link) -> String {
      "\((1e6 * link.latency).shortText) µs and \(giga(1 / max(link.secondsPerByte, 1e-15))) GB/s"
    }
    var parts = [
      "products \(giga(productRate)) GFLOP/s", "attention \(giga(attentionRate)) GFLOP/s",
      "memory \(giga(memoryBandwidth)) GB/s",
    ]
    if elementwiseSecondsPerByte > 0 {
      parts.insert("elementwise \(giga(1 / elementwiseSecondsPerByte)) GB/s", at: 2)
    }
    if tapeOperationSeconds > 0 {
      parts.insert("\((1e6 * tapeOperationSeconds).shortText) µs for an operation", at: 3)
    }
    if ranksPerNode > 1 { parts.append("messages inside a node \(link(inside))") }
    if between != inside { parts.append("between nodes \(link(between))") }
    if exchangeWait > 0 { parts.append("\((1e6 * exchangeWait).shortText) µs lost at an exchange") }
    if ranksPerNode > 1, packingSecondsPerByte > 0 {
      parts.append("packing \(giga(1 / packingSecondsPerByte)) GB/s")
    }
    if codingSecondsPerByte > 0 {
      parts.append("coding and sums \(giga(1 / codingSecondsPerByte)) GB/s")
    }
    return parts.joined(separator: ", ")
  }
}

/// What the ranks of one role of a phase take.
package struct RoleShare: Codable, Sendable {
  package let role: RankRole
  package let firstRank: Int
  package let rankCount: Int
  package let peakByteCountPerRank: Int
  /// Of the time of a step, by the cost model.
  package let idleShare: Double
}

extension RunPlan {
  /// Empty for a phase in which all ranks do the same.
  package func roleShares(of phase: PhaseCosts) -> [RoleShare] {
    guard let timeline = phase.roles, let generatorRanks = shape.generatorRanks else { return [] }
    let scoreCount = phase.memory.count - generatorRanks.count
    return RankRole.allCases.map { role in
      let ranks = role == .score ? 0..<scoreCount : scoreCount..<phase.memory.count
      return RoleShare(
        role: role, firstRank: ranks.lowerBound, rankCount: ranks.count,
        peakByteCountPerRank: phase.memory[ranks].map(\.totalPeakByteCount).max() ?? 0,
        idleShare: timeline.idleShare(of: role))
    }
  }
}
