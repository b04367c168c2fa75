// What `w2svd plan --simulate` tells, for people and for programs.

import Evaluation
import Foundation
package import Planning

package struct SimulationReport: Encodable, Sendable {
  /// A number of the machine with its origin.
  package struct MachineNumber: Encodable, Sendable {
    package let value: Double
    package let unit: String
    package let origin: String
  }

  package let model: String
  package let parameterCount: Double
  package let tokenCount: Int
  package let forwardOperations: Double
  package let microbatchCount: Int
  package let samplesPerMicrobatch: Int
  package let precision: SimulatedPrecision
  package let state: StateBytes
  package let machine: [String: MachineNumber]
  package let nodeMemories: [Double]
  /// What fits, by number of ranks and kind of layout.
  package let leanest: [LeanestLayout]
  package let curves: [ScalingCurve]
  /// The best layouts, where one number of ranks was asked for.
  package let layouts: [ScalingPoint]
  /// Whether some layouts have stages that the worker does not.
  package let isOnPaper: Bool
  /// What the numbers leave out.
  package let notes: [String]

  /// - Parameter origins: where numbers that are not defaults come from, by key.
  package init(_ study: ScalingStudy, model: String, origins: [String: String]) {
    let run = study.run
    self.model = model
    parameterCount = run.work.model.parameterCount
    tokenCount = run.work.model.tokenCount
    forwardOperations = run.work.model.forwardOperationCount
    microbatchCount = run.sizes.microbatchCount
    samplesPerMicrobatch = run.sizes.samplesPerMicrobatch
    precision = run.work.precision
    state = run.work.state
    machine = Dictionary(
      uniqueKeysWithValues: MachineOption.all.map { option in
        let value = option.value(of: run.work.machine)
        return (
          option.key,
          MachineNumber(
            value: value, unit: option.unit, origin: origins[option.key] ?? option.origin)
        )
      })
    nodeMemories = study.nodeMemories
    leanest = study.leanest
    curves = ScalingCurve.Kind.allCases.flatMap { study.curves($0) }
    layouts =
      study.rankCounts.count == 1 ? study.bestLayouts(rankCount: study.rankCounts[0]) : []
    isOnPaper = study.rules.interleaves || study.rules.usesLocalBlocks
    notes =
      (run.sizes.headElementCount > 0 ? ["the discriminator's passes are left out"] : [])
      + (run.sizes.method == .none || run.sizes.distillStepCount == 0
        ? ["nothing is distilled: steps are teach steps"] : [])
  }

  package var text: String {
    var lines = [
      "\(model): \(Self.compact(parameterCount)) parameters, \(tokenCount) tokens a sample, "
        + "\(Self.compact(forwardOperations)) FLOP a forward pass of a microbatch",
      "\(microbatchCount) microbatches of \(samplesPerMicrobatch) a step; products in "
        + "\(precision.rawValue), bytes of a parameter \(Self.compact(state.parameter)) + gradient "
        + "\(Self.compact(state.gradient)) + optimizer \(Self.compact(state.optimizer))",
      "", "machine",
    ]
    lines += MachineOption.all.compactMap { option in
      machine[option.key].map {
        "  " + Self.column(option.key, 22) + Self.column("\(Self.compact($0.value)) \($0.unit)", 26)
          + $0.origin
      }
    }
    lines += [""] + fits
    for curve in curves { lines += [""] + table(curve) }
    if !layouts.isEmpty {
      lines += [
        "", "best layouts for nodes of \(ReportText.bytes(Int(nodeMemories.max() ?? 0)))",
        Self.header,
      ]
      lines += layouts.map(Self.row)
    }
    lines += [
      "",
      "The worker runs these layouts, each as mesh.* of the configuration"
        + (isOnPaper ? ", but for interleaved stages and local blocks, which are on paper" : "")
        + ". A step is a mean over turns; its parts are those of the stage, and role, that computes longest.",
    ]
    lines += notes.map { "note: \($0)" }
    return lines.joined(separator: "\n") + "\n"
  }

  /// The leanest layouts and how many of their ranks a node takes; 0: none.
  private var fits: [String] {
    let sizes = nodeMemories.map { Self.right(ReportText.bytes(Int($0)), 9) }.joined()
    let header =
      "  " + Self.right("ranks", 6) + "  " + Self.column("kind", 8)
      + Self.right("bytes/rank", 11) + sizes + "  leanest layout"
    return ["what fits: ranks that a node of a size takes", header]
      + leanest.map { row in
        "  " + Self.right("\(row.rankCount)", 6) + "  " + Self.column(row.kind, 8)
          + Self.right(ReportText.bytes(row.byteCountPerRank), 11)
          + row.ranksPerNode.map { Self.right("\($0)", 9) }.joined() + "  " + row.layout
      }
  }

  private func table(_ curve: ScalingCurve) -> [String] {
    let title =
      curve.kind == .strong
      ? "strong scaling, \(microbatchCount) microbatches a step"
      : "weak scaling, a microbatch for each 8 ranks"
    var lines = ["\(title), nodes of \(ReportText.bytes(Int(curve.memoryPerNode)))"]
    if !curve.points.isEmpty { lines += [Self.header] + curve.points.map(Self.row) }
    if !curve.unfit.isEmpty {
      lines.append(
        "  no layout fits \(curve.unfit.map(String.init).joined(separator: ", ")) ranks")
    }
    return lines
  }

  private static let header =
    "  " + right("ranks", 6) + right("a node", 8) + right("nodes", 7) + right("bytes/rank", 12)
    + right("step s", 10) + right("compute", 9) + right("exposed", 9) + right("bubble", 8)
    + right("sent/rank", 11) + right("eff.", 7) + "  layout"

  private static func row(_ point: ScalingPoint) -> String {
    let step = point.step
    func share(_ part: Double) -> String {
      String(format: "%.1f %%", 100 * part / max(step.seconds, .leastNormalMagnitude))
    }
    return "  " + right("\(point.rankCount)", 6) + right("\(point.ranksPerNode)", 8)
      + right("\(point.nodeCount)", 7) + right(ReportText.bytes(point.byteCountPerRank), 12)
      + right(seconds(step.seconds), 10) + right(share(step.compute), 9)
      + right(share(step.exposedCommunication), 9) + right(share(step.bubble), 8)
      + right(ReportText.bytes(Int(step.sentBytes)), 11)
      + right(String(format: "%.2f", point.efficiency), 7) + "  " + point.layout
  }

  private static func seconds(_ value: Double) -> String {
    String(format: value >= 100 ? "%.0f" : value >= 1 ? "%.2f" : "%.4f", value)
  }

  private static func compact(_ value: Double) -> String {
    if value >= 1e4 || (value < 1e-3 && value > 0) { return String(format: "%.4g", value) }
    return String(format: "%g", value)
  }

  private static func column(_ text: String, _ width: Int) -> String {
    text.padding(toLength: max(width, text.count + 1), withPad: " ", startingAt: 0)
  }

  private static func right(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(1, width - text.count)) + text
  }
}

extension ScalingStudy {
  /// The best ten layouts of a number of ranks on the largest nodes.
  func bestLayouts(rankCount: Int) -> [ScalingPoint] {
    points(rankCount: rankCount, memoryPerNode: nodeMemories.max() ?? 0, limit: 10)
  }
}
