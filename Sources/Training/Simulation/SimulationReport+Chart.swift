// The picture of a simulation: seconds of a step, strong and weak, and where a step goes.

package import Evaluation
import Planning

extension SimulationReport {
  /// Three panels; the last is of strong scaling on the largest nodes.
  package var chart: ScalingChart {
    ScalingChart(
      title: model,
      panels: [
        seconds(.strong, "Strong scaling, \(microbatchCount) microbatches"),
        seconds(.weak, "Weak scaling"), parts,
      ])
  }

  private func seconds(_ kind: ScalingCurve.Kind, _ title: String) -> ScalingChart.Panel {
    let curves = curves.filter { $0.kind == kind }
    var series = curves.map { curve in
      ScalingChart.Series(
        name: "nodes of \(ReportText.bytes(Int(curve.memoryPerNode)))",
        points: curve.points.map { (Double($0.rankCount), $0.step.seconds) })
    }
    if let longest = curves.max(by: { $0.points.count < $1.points.count }),
      let first = longest.points.first
    {
      series.append(
        ScalingChart.Series(
          name: kind == .strong ? "twice the ranks, half the time" : "the first point's time",
          points: longest.points.map { point in
            let factor = Double(point.rankCount) / Double(first.rankCount)
            return (
              Double(point.rankCount), first.step.seconds / (kind == .strong ? factor : 1)
            )
          }, isDashed: true))
    }
    return ScalingChart.Panel(
      title: title, label: "seconds of a step", isLogarithmic: kind == .strong, series: series)
  }

  private var parts: ScalingChart.Panel {
    let curve = curves.filter { $0.kind == .strong }.max { $0.memoryPerNode < $1.memoryPerNode }
    let points = curve?.points ?? []
    func series(_ name: String, _ part: (ScalingPoint) -> Double) -> ScalingChart.Series {
      ScalingChart.Series(
        name: name,
        points: points.map { (Double($0.rankCount), 100 * part($0) / $0.step.seconds) })
    }
    return ScalingChart.Panel(
      title: "Where a step goes, strong scaling", label: "per cent of a step",
      isLogarithmic: false,
      series: [
        series("compute") { $0.step.compute },
        series("exposed communication") { $0.step.exposedCommunication },
        series("bubble") { $0.step.bubble },
      ])
  }
}
