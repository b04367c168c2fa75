// Layouts in which the generator is distilled on ranks of its own. The other phases run on all ranks together,
// as data parallelism alone; what they shard the score ranks shard too.

package import MeshLayout

extension MeshSearch {
  /// Legal layouts with split roles, those of lower stages first, of these the fewest generator ranks.
  package var splitShapes: [MeshShape] {
    guard unsplitAxes.isEmpty, rankCount > 1 else { return [] }
    var all = self
    all.splitsRoles = false
    all.sp = 1
    return all.shapes.flatMap { shape in
      generatorRankCounts.compactMap { count -> MeshShape? in
        var split = shape
        split.generatorRanks = GeneratorRanks(count, zeroStage: generatorStage ?? shape.zeroStage)
        return sharingProblem(of: split) == nil ? split : nil
      }
    }
  }

  private var generatorRankCounts: [Int] {
    guard let generatorRankCount else { return Array(1..<max(rankCount, 1)) }
    return (1..<max(rankCount, 1)).contains(generatorRankCount) ? [generatorRankCount] : []
  }

  /// Axes that are asked for and do not go with split roles.
  private var unsplitAxes: [(key: String, degree: Int)] {
    [
      ("mesh.dp", dp), ("mesh.ring", ring), ("mesh.sp", sp ?? 1), ("mesh.tp", tp),
      ("mesh.stages", stages),
    ].filter { $0.1 != 1 }.map { (key: $0.0, degree: $0.1) }
  }

  /// Why a set of ranks cannot share the microbatches.
  private func sharingProblem(of shape: MeshShape) -> String? {
    do {
      _ = try shape.roles(of: microbatchCount)
      return nil
    } catch {
      return error.message
    }
  }

  /// Why there is no layout with split roles.
  var splitProblems: [Problem] {
    guard rankCount > 1 else {
      return [
        Problem(
          key: "mesh.placement",
          message:
            "is split, but there is \(rankCount) rank: start 2 or more, or set it to colocated"
        )
      ]
    }
    let axes = unsplitAxes.map {
      Problem(
        key: $0.key,
        message:
          "is \($0.degree), but with mesh.placement split ranks share microbatches alone in this "
          + "version: leave it auto or 1, or set mesh.placement to colocated")
    }
    var problems = axes
    if let generatorRankCount, generatorRankCounts.isEmpty {
      problems.append(
        Problem(
          key: "mesh.generatorRanks",
          message:
            "is \(generatorRankCount), but of \(rankCount) ranks 1 to \(rankCount - 1) can hold "
            + "the generator, for the others score it\(nearestSplit)"))
    }
    if !problems.isEmpty { return problems }
    var all = self
    all.splitsRoles = false
    all.sp = 1
    problems = all.problems
    if !problems.isEmpty { return problems }
    let shape = all.shapes.first.map { shape in
      var split = shape
      split.generatorRanks = GeneratorRanks(
        generatorRankCounts[0], zeroStage: generatorStage ?? shape.zeroStage)
      return split
    }
    return [
      Problem(
        key: "mesh.generatorRanks",
        message: "is \(generatorRankCount.map(String.init) ?? "auto"), but "
          + "\(shape.flatMap(sharingProblem) ?? "no number is legal")\(nearestSplit)")
    ]
  }

  /// What would be legal instead.
  private var nearestSplit: String {
    var free = self
    (free.generatorRankCount, free.generatorStage, free.stage, free.zero) = (nil, nil, nil, nil)
    (free.dp, free.ring, free.sp, free.tp, free.stages) = (1, 1, nil, 1, 1)
    guard
      let shape = free.splitShapes.min(by: { distance(to: $0) < distance(to: $1) }),
      let ranks = shape.generatorRanks
    else { return "" }
    return "; legal here: mesh.generatorRanks \(ranks.count), mesh.zeroStage "
      + "\(shape.zeroStage.rawValue)"
  }

  private func distance(to shape: MeshShape) -> Int {
    abs((shape.generatorRanks?.count ?? 0) - (generatorRankCount ?? 1))
  }
}
