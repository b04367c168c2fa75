// Layouts in which the generator is distilled on ranks of its own. The ranks that score have the axes of all ranks,
// with whom they share the other phases, but for `zero`; the generator's may have others. Either set is a mesh of
// its own, to which all rules of meshes apply.

package import MeshLayout

extension MeshSearch {
  /// Legal layouts with split roles, those of lower stages first, of these the fewest generator ranks.
  package var splitShapes: [MeshShape] {
    guard rankCount > 1 else { return [] }
    return ofAll.shapes.flatMap { shape in
      generatorRankCounts.compactMap { split(shape, $0) }
        .filter { sharingProblem(of: $0) == nil }
    }
  }

  /// The layouts of all ranks together. Tokens are shared only where somebody asks for it.
  private var ofAll: MeshSearch {
    var all = self
    all.splitsRoles = false
    all.sp = sp ?? 1
    return all
  }

  /// The layout with so many generator ranks; nil where one of the sets has no mesh.
  private func split(_ shape: MeshShape, _ count: Int) -> MeshShape? {
    let score = search(of: .score, generatorRankCount: count, stage: shape.zeroStage)
    let generator = search(of: .generator, generatorRankCount: count, stage: shape.zeroStage)
    guard !score.shapes.isEmpty, let generatorShape = generator.shapes.first else { return nil }
    var split = shape
    split.generatorRanks = GeneratorRanks(generatorShape)
    return split
  }

  /// The ranks of a role by themselves.
  /// - Parameter stage: what the ranks that score shard.
  private func search(
    of role: RankRole, generatorRankCount: Int, stage: ZeroStage
  ) -> MeshSearch {
    var set = ofAll
    (set.zero, set.stage, set.tellsNearest) = (nil, stage, false)
    guard role == .generator else {
      set.rankCount = rankCount - generatorRankCount
      return set
    }
    set.rankCount = generatorRankCount
    set.dp = generatorDegrees[.dp] ?? set.dp
    set.ring = generatorDegrees[.ring] ?? set.ring
    set.sp = generatorDegrees[.sp] ?? set.sp
    set.tp = generatorDegrees[.tp] ?? set.tp
    set.stages = generatorDegrees[.stages] ?? set.stages
    set.stage = generatorStage ?? (set.tp > 1 || set.stages > 1 ? .parameters : stage)
    return set
  }

  private var generatorRankCounts: [Int] {
    guard let generatorRankCount else { return Array(1..<max(rankCount, 1)) }
    return (1..<max(rankCount, 1)).contains(generatorRankCount) ? [generatorRankCount] : []
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
    var problems: [Problem] = []
    if let generatorRankCount, generatorRankCounts.isEmpty {
      problems.append(
        Problem(
          key: "mesh.generatorRanks",
          message:
            "is \(generatorRankCount), but of \(rankCount) ranks 1 to \(rankCount - 1) can hold "
            + "the generator, for the others score it\(nearestSplit)"))
    }
    // A layout of all ranks may leave the roles none.
    var all = ofAll
    all.tellsNearest = false
    let named = problems.isEmpty ? nearestSplit : ""
    let ofAllRanks = all.problems
    problems += ofAllRanks.enumerated().map { index, problem in
      Problem(
        key: problem.key,
        message: problem.message + (index == ofAllRanks.count - 1 ? named : ""))
    }
    if !problems.isEmpty { return problems }
    guard let all = ofAll.shapes.first else { return [] }
    // Of any number that is open the first: what is wrong with it is most often wrong with all.
    let count = generatorRankCounts[0]
    guard let shape = split(all, count) else {
      return setProblems(RankRole.allCases, generatorRankCount: count, stage: all.zeroStage)
    }
    return [
      Problem(
        key: "mesh.generatorRanks",
        message: "is \(generatorRankCount.map(String.init) ?? "auto"), but "
          + "\(sharingProblem(of: shape) ?? "no number is legal")\(nearestSplit)")
    ]
  }

  /// What is wrong with the meshes of the roles.
  private func setProblems(
    _ roles: [RankRole], generatorRankCount count: Int, stage: ZeroStage
  ) -> [Problem] {
    roles.flatMap { role in
      search(of: role, generatorRankCount: count, stage: stage).problems.map { problem in
        let (ranks, verb) =
          role == .score
          ? (rankCount - count, "score samples") : (count, "hold the generator")
        return Problem(
          key: role == .score ? problem.key : generatorKey(problem.key),
          message:
            "\(problem.message) (of the \(ranks) ranks that \(verb) with mesh.generatorRanks \(count))"
            + nearestSplit)
      }
    }
  }

  /// The key that says of the generator's ranks what `key` says of all.
  private func generatorKey(_ key: String) -> String {
    let keys: [(key: String, own: String, isOwn: Bool)] = [
      ("mesh.dp", "mesh.generatorDp", generatorDegrees[.dp] != nil),
      ("mesh.ring", "mesh.generatorRing", generatorDegrees[.ring] != nil),
      ("mesh.sp", "mesh.generatorSp", generatorDegrees[.sp] != nil),
      ("mesh.tp", "mesh.generatorTp", generatorDegrees[.tp] != nil),
      ("mesh.stages", "mesh.generatorStages", generatorDegrees[.stages] != nil),
      ("mesh.zeroStage", "mesh.generatorZeroStage", generatorStage != nil),
    ]
    return keys.first { $0.key == key && $0.isOwn }?.own ?? key
  }

  /// What would be legal instead: another number of generator ranks, or, where none is, other axes.
  private var nearestSplit: String {
    guard tellsNearest else { return "" }
    var free = self
    (free.generatorRankCount, free.generatorStage, free.stage, free.zero) = (nil, nil, nil, nil)
    if !free.splitShapes.contains(where: isOpen) {
      (free.dp, free.ring, free.sp, free.tp, free.stages) = (1, 1, 1, 1, 1)
      free.generatorDegrees = [:]
    }
    guard
      let shape = free.splitShapes.filter(isOpen)
        .min(by: { distance(to: $0) < distance(to: $1) }), let ranks = shape.generatorRanks
    else { return "" }
    let names: [(axis: Axis, key: String, generatorKey: String)] = [
      (.stages, "stages", "generatorStages"), (.dp, "dp", "generatorDp"),
      (.ring, "ring", "generatorRing"), (.sp, "sp", "generatorSp"), (.tp, "tp", "generatorTp"),
    ]
    // What was asked for otherwise is to be set too, and what must stay at 1.
    let asked: [Axis: Int] = [.stages: stages, .dp: dp, .ring: ring, .sp: sp ?? 1, .tp: tp]
    var keys = ["generatorRanks \(ranks.count)", "zeroStage \(shape.zeroStage.rawValue)"]
    if zero != nil { keys.append("zero \(shape[.zero])") }
    for name in names
    where shape[name.axis] > 1 || asked[name.axis] != shape[name.axis]
      || closedAxes.contains(name.axis)
    {
      keys.append("\(name.key) \(shape[name.axis])")
    }
    if generatorStage != nil { keys.append("generatorZeroStage \(ranks.zeroStage.rawValue)") }
    for name in names
    where generatorDegrees[name.axis] != nil || ranks.shape[name.axis] != shape[name.axis] {
      keys.append("\(name.generatorKey) \(ranks.shape[name.axis])")
    }
    return "; legal here: " + keys.map { "mesh.\($0)" }.joined(separator: ", ")
  }

  private func distance(to shape: MeshShape) -> Int {
    abs((shape.generatorRanks?.count ?? 0) - (generatorRankCount ?? 1))
  }
}
