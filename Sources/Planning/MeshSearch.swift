// Which layouts a number of ranks allows, and which one is taken.
//
// Placed today: `dp` (replicas), `zero` (data parallel with sharded state, stages 1 to 3), `sp` (Ulysses), `ring`
// (ring attention), `tp` (tensor parallel, at stage 3) and `stages` (pipelines, at stage 3), in any combination. Data
// parallelism comes first as long as the microbatches divide: it exchanges gradients once a step, `sp` activations
// in every block, `ring` about ring / 2 times as many, `tp` as many whatever its degree (specs of distributed
// systems, §4). Hence `ring`, `tp`, `stages`, and `dp`, which takes memory, are more than 1 only where somebody asks
// for it. A lower stage comes before a higher one, which needs less memory and sends more.

package import MeshLayout

/// What a layout must fit. Degrees that are nil are free.
package struct MeshSearch: Equatable, Sendable {
  package var rankCount: Int
  package var microbatchCount: Int
  package var headCount: Int
  /// Hidden units of a block's MLP; 0: not known yet, any degree divides them.
  package var mlpWidth: Int
  package var dp: Int
  package var zero: Int?
  package var ring: Int
  package var sp: Int?
  package var tp: Int
  /// Stages of a pipeline.
  package var stages: Int
  /// Blocks of the network; 0: not known yet, they suffice for any number of stages.
  package var blockCount: Int
  package var stage: ZeroStage?
  /// Whether sums over tokens are to have the bits of one rank.
  package var hasCanonicalSums = false
  /// Whether the generator is to be distilled on ranks of its own.
  package var splitsRoles = false
  /// How many those are, and what they shard; nil is free.
  package var generatorRankCount: Int?
  package var generatorStage: ZeroStage?
  /// Degrees of these ranks, but that of `zero`, where they are not those of the others.
  package var generatorDegrees: [Axis: Int] = [:]
  /// Whether problems tell what would be legal instead.
  package var tellsNearest = true
  /// Axes that other settings leave at 1, as is told where those are: with more, no layout is named as legal.
  package var closedAxes: Set<Axis> = []

  package init(
    rankCount: Int, microbatchCount: Int, headCount: Int, mlpWidth: Int = 0, dp: Int = 1,
    zero: Int? = nil, ring: Int = 1, sp: Int? = nil, tp: Int = 1, stages: Int = 1,
    blockCount: Int = 0, stage: ZeroStage? = nil
  ) {
    self.rankCount = rankCount
    self.microbatchCount = microbatchCount
    self.headCount = headCount
    self.mlpWidth = mlpWidth
    self.dp = dp
    self.zero = zero
    self.ring = ring
    self.sp = sp
    self.tp = tp
    self.stages = stages
    self.blockCount = blockCount
    self.stage = stage
  }

  /// Legal layouts, those with the least `sp` first, of these the lowest stage.
  package var shapes: [MeshShape] { splitsRoles ? splitShapes : colocatedShapes }

  private var colocatedShapes: [MeshShape] {
    guard shape(sp: 1, stage: .optimizer) != nil else { return [] }
    return (1...rankCount / (dp * ring * tp * stages)).flatMap { sp in
      zeroStages.compactMap { shape(sp: sp, stage: $0) }.filter { problems(of: $0).isEmpty }
    }
  }

  /// Stages of ZeRO that are open. A replica on one rank has nothing to shard; weights are cut, and those of a
  /// pipeline's stage come, as they are loaded.
  private var zeroStages: [ZeroStage] {
    if dp > 0, rankCount == dp { return [.optimizer] }
    if tp > 1 || stages > 1, stage == nil { return [.parameters] }
    if hasCanonicalSums, let sp, sp > 1, stage == nil { return [.gradients, .parameters] }
    return stage.map { [$0] } ?? ZeroStage.allCases
  }

  /// The layout with `sp`; nil where dp × ring × tp × stages × sp does not divide the ranks.
  private func shape(sp: Int, stage: ZeroStage) -> MeshShape? {
    let degrees = [dp, ring, tp, stages, sp]
    guard degrees.allSatisfy({ $0 > 0 }), rankCount % degrees.reduce(1, *) == 0 else { return nil }
    let zero = rankCount / degrees.reduce(1, *)
    return MeshShape(
      [.stages: stages, .dp: dp, .zero: zero, .ring: ring, .sp: sp, .tp: tp], zeroStage: stage)
  }

  /// Rules that a layout breaks, by the key that is at fault.
  package struct Problem: Equatable, Sendable {
    package let key: String
    package let message: String
  }

  /// Why there is no layout; empty when there is one.
  package var problems: [Problem] {
    guard shapes.isEmpty else { return [] }
    if splitsRoles { return splitProblems }
    let own = ownProblems
    if Set(own.map(\.key)).count > 1 { return told(own) }
    guard dp > 0, rankCount % dp == 0 else {
      return [
        Problem(
          key: "mesh.dp",
          message: "is \(dp), which does not divide the \(rankCount) ranks\(nearest)")
      ]
    }
    guard ring > 0, rankCount / dp % ring == 0 else {
      return [
        Problem(
          key: "mesh.ring", message: "is \(ring), which does not divide \(left(by: [:]))\(nearest)")
      ]
    }
    guard tp > 0, rankCount / dp / ring % tp == 0 else {
      let left = left(by: ["mesh.ring": ring])
      return [
        Problem(key: "mesh.tp", message: "is \(tp), which does not divide \(left)\(nearest)")
      ]
    }
    guard shape(sp: 1, stage: zeroStages[0]) != nil else {
      let left = left(by: ["mesh.ring": ring, "mesh.tp": tp])
      return [
        Problem(
          key: "mesh.stages", message: "is \(stages), which does not divide \(left)\(nearest)")
      ]
    }
    let left = left(by: ["mesh.ring": ring, "mesh.tp": tp, "mesh.stages": stages])
    // The layout that was asked for, by the degree that is given; else data parallelism alone.
    if let sp, shape(sp: sp, stage: zeroStages[0]) == nil {
      return [
        Problem(key: "mesh.sp", message: "is \(sp), which does not divide \(left)\(nearest)")
      ]
    }
    if let zero, sp == nil {
      let degree = zero > 0 ? rankCount / dp / ring / tp / stages / zero : 0
      guard let shape = shape(sp: degree, stage: zeroStages[0]), shape[.zero] == zero else {
        return [
          Problem(key: "mesh.zero", message: "is \(zero), which does not divide \(left)\(nearest)")
        ]
      }
      return problems(of: shape).map {
        $0.key == "mesh.sp"
          ? Problem(
            key: "mesh.zero",
            message: "is \(zero), so that \(degree) ranks would share the tokens of a microbatch; "
              + "mesh.sp \($0.message)\(nearest)")
          : Problem(key: $0.key, message: $0.message + nearest)
      }
    }
    return (shape(sp: sp ?? 1, stage: zeroStages[0]).map(problems(of:)) ?? []).map {
      Problem(key: $0.key, message: $0.message + nearest)
    }
  }

  /// What is wrong with a degree whatever the others are: told all together.
  var ownProblems: [Problem] {
    var problems: [Problem] = []
    func require(_ holds: Bool, _ key: String, _ message: String) {
      if !holds { problems.append(Problem(key: key, message: message)) }
    }
    let degrees: [(key: String, degree: Int?)] = [
      ("mesh.dp", dp), ("mesh.zero", zero), ("mesh.ring", ring), ("mesh.sp", sp), ("mesh.tp", tp),
      ("mesh.stages", stages),
    ]
    for case (let key, .some(let degree)) in degrees {
      require(
        degree > 0 && rankCount % degree == 0, key,
        "is \(degree), which does not divide the \(rankCount) ranks")
    }
    for (key, degree) in [("mesh.sp", sp ?? 1), ("mesh.tp", tp)] {
      require(
        degree > 0 && headCount % degree == 0, key,
        "is \(degree), which does not divide the \(headCount) attention heads")
    }
    require(
      blockCount == 0 || stages <= blockCount, "mesh.stages",
      "is \(stages), but the network has only \(blockCount) blocks, and each stage runs one at least"
    )
    return problems
  }

  /// The first of each key; the nearest legal layout once, with the last.
  private func told(_ problems: [Problem]) -> [Problem] {
    var told: [Problem] = []
    for problem in problems where !told.contains(where: { $0.key == problem.key }) {
      told.append(problem)
    }
    if let last = told.popLast() {
      told.append(Problem(key: last.key, message: last.message + nearest))
    }
    return told
  }

  /// The ranks that replicas and further degrees leave.
  private func left(by degrees: [String: Int]) -> String {
    let taken = (["mesh.dp": dp].merging(degrees) { $1 }).filter { $0.value > 1 }
    let count = taken.values.reduce(rankCount, /)
    let names = taken.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
    return "the \(count) ranks"
      + (names.isEmpty
        ? "" : " that \(names.joined(separator: ", ")) leave\(names.count == 1 ? "s" : "")")
  }

  /// Whether a layout keeps all rules for the heads, blocks and microbatches of this search, whatever degrees that
  /// has itself: what `shapes` would find if they were those of the layout.
  package func allows(_ shape: MeshShape) -> Bool {
    guard let generatorRanks = shape.generatorRanks else { return keepsRules(shape) }
    var all = shape
    all.generatorRanks = nil
    let scoreCount = shape.rankCount - generatorRanks.count
    guard scoreCount > 0, scoreCount % (shape.rankCount / shape[.zero]) == 0, keepsRules(all)
    else { return false }
    var scoreShape = shape.scoreShape
    // Nothing to shard, whatever the stage.
    if scoreShape.rankCount == scoreShape[.dp] { scoreShape.zeroStage = .optimizer }
    return keepsRules(scoreShape) && keepsRules(generatorRanks.shape)
  }

  private func keepsRules(_ shape: MeshShape) -> Bool {
    var exact = self
    (exact.rankCount, exact.stage) = (shape.rankCount, shape.zeroStage)
    (exact.dp, exact.zero, exact.ring) = (shape[.dp], shape[.zero], shape[.ring])
    (exact.sp, exact.tp, exact.stages) = (shape[.sp], shape[.tp], shape[.stages])
    return exact.zeroStages.contains(shape.zeroStage) && exact.problems(of: shape).isEmpty
  }

  private func problems(of shape: MeshShape) -> [Problem] {
    let (dataDegree, degree) = (shape.dataParallelDegree, shape[.sp])
    var problems: [Problem] = []
    func require(_ holds: Bool, _ key: String, _ message: @autoclosure () -> String) {
      if !holds { problems.append(Problem(key: key, message: message())) }
    }
    require(
      sp == nil || sp == degree, "mesh.sp", "is \(sp ?? 0), this layout has \(degree)")
    require(
      zero == nil || zero == shape[.zero], "mesh.zero",
      "is \(zero ?? 0), but \(rankCount) ranks with \(Self.sharing(shape)) leave \(shape[.zero])")
    require(
      stages == 1 || shape.zeroStage == .parameters, "mesh.stages",
      "is \(stages), which goes with mesh.zeroStage 3 only: a rank has the blocks of its stage")
    require(
      blockCount == 0 || stages <= blockCount, "mesh.stages",
      "is \(stages), but the network has only \(blockCount) blocks, and each stage runs one at least"
    )
    require(
      tp == 1 || shape.zeroStage == .parameters, "mesh.tp",
      "is \(tp), which goes with mesh.zeroStage 3 only: weights are cut as they are loaded")
    require(
      headCount % tp == 0, "mesh.tp",
      "is \(tp), which does not divide the \(headCount) attention heads")
    require(
      mlpWidth % tp == 0, "mesh.tp",
      "is \(tp), which does not divide the \(mlpWidth) hidden units of the MLP")
    require(
      headCount % tp != 0 || headCount / tp % degree == 0, "mesh.sp",
      "is \(degree), which does not divide the \(headCount / tp) attention heads"
        + (tp == 1 ? "" : " that mesh.tp \(tp) leaves a rank"))
    require(
      dataDegree <= microbatchCount, "batch.microbatches",
      "is \(microbatchCount), but \(dataDegree) data-parallel ranks need one each")
    require(
      !shape.sumsRounds || dataDegree > microbatchCount
        || microbatchCount % dataDegree == 0, "mesh.zeroStage",
      "is \(shape.zeroStage.rawValue), with which \(dataDegree) data-parallel ranks sum gradients in "
        + "every round of microbatches, but they do not divide the \(microbatchCount) of "
        + "batch.microbatches")
    if hasCanonicalSums { problems += canonicalProblems(of: shape) }
    return problems
  }

  /// Where the bits of one rank would not be kept.
  private func canonicalProblems(of shape: MeshShape) -> [Problem] {
    var problems: [Problem] = []
    func require(_ holds: Bool, _ key: String, _ message: @autoclosure () -> String) {
      if !holds { problems.append(Problem(key: key, message: message())) }
    }
    let partCounts = TokenBlocks.partCounts.map(String.init).joined(separator: ", ")
    let degree = shape[.sp] * shape[.tp]
    require(
      TokenBlocks.partCounts.contains(degree), shape[.sp] > 1 ? "mesh.sp" : "mesh.tp",
      "is \(shape[shape[.sp] > 1 ? .sp : .tp]), but with mesh.sums canonical each rank has whole ones of "
        + "\(TokenBlocks.count) blocks of tokens: take one of \(partCounts)"
        + (shape[.sp] > 1 && shape[.tp] > 1 ? " for mesh.sp × mesh.tp, which is \(degree)" : ""))
    let slices = sliceCount(heads: headCount, hiddenUnits: mlpWidth)
    require(
      !TokenBlocks.partCounts.contains(degree) || slices % shape[.tp] == 0, "mesh.tp",
      "is \(shape[.tp]), but with mesh.sums canonical each rank has whole ones of \(slices) slices of heads and "
        + "hidden units, as many as the largest power of two up to 8 that divides both: take a divisor of \(slices)"
    )
    require(
      shape[.sp] == 1 || shape.zeroStage != .optimizer, "mesh.zeroStage",
      "is 1, but with mesh.sums canonical ranks that share tokens (mesh.sp \(shape[.sp])) sum gradients of every "
        + "microbatch before the next: take auto, 2 or 3")
    require(
      shape[.ring] == 1, "mesh.ring",
      "is \(shape[.ring]), but mesh.sums canonical makes no fixed blocks of its sums in this version: leave it "
        + "auto or 1, share tokens by mesh.sp or mesh.tp, or set mesh.sums to fast")
    return problems
  }

  /// What would be legal instead.
  private var nearest: String {
    guard tellsNearest else { return "" }
    var free = self
    (free.dp, free.zero, free.sp, free.stage) = (1, nil, nil, nil)
    func fall(from degree: Int) -> StrideTo<Int> {
      stride(from: max(min(degree, rankCount), 1), to: 0, by: -1)
    }
    for stages in fall(from: stages) {
      for ring in fall(from: ring) {
        for tp in fall(from: tp) {
          (free.stages, free.ring, free.tp) = (stages, ring, tp)
          if let shape = free.shapes.first(where: isOpen) {
            return "; legal here: \(keys(of: shape))"
          }
        }
      }
    }
    free.stages = 1
    func kept(_ degree: Int) -> [Int] { Set([max(degree, 1), 1]).sorted(by: >) }
    for count in stride(from: rankCount - 1, to: 0, by: -1) {
      free.rankCount = count
      for ring in kept(ring) {
        for tp in kept(tp) {
          (free.ring, free.tp) = (ring, tp)
          guard let shape = free.shapes.first(where: isOpen) else { continue }
          return "; the next smaller number of ranks with a layout is \(count) "
            + "(\(keys(of: shape)))"
        }
      }
    }
    return ""
  }

  /// Whether all settings, not the rules of meshes alone, allow a layout.
  func isOpen(_ shape: MeshShape) -> Bool {
    closedAxes.allSatisfy { shape[$0] == 1 && shape.generatorRanks?.shape[$0] ?? 1 == 1 }
  }

  /// What is to be set for a layout: also to 1, what was asked for otherwise.
  private func keys(of shape: MeshShape) -> String {
    let asked: [(axis: Axis, degree: Int)] = [
      (.stages, stages), (.dp, dp), (.ring, ring), (.tp, tp),
    ]
    let changed = Set(asked.filter { shape[$0.axis] != $0.degree }.map(\.axis))
    let namesStage = shape.zeroStage != (stage ?? .optimizer)
    return "mesh.zero \(shape[.zero]), \(Self.sharing(shape, naming: changed))"
      + (namesStage || shape.zeroStage != .optimizer
        ? ", mesh.zeroStage \(shape.zeroStage.rawValue)" : "")
  }

  /// - Parameter named: axes that are told also where they are 1.
  private static func sharing(_ shape: MeshShape, naming named: Set<Axis> = []) -> String {
    let axes: [(axis: Axis, key: String)] = [
      (.stages, "stages"), (.dp, "dp"), (.ring, "ring"), (.sp, "sp"), (.tp, "tp"),
    ]
    return axes.filter { $0.axis == .sp || shape[$0.axis] > 1 || named.contains($0.axis) }
      .map { "mesh.\($0.key) \(shape[$0.axis])" }.joined(separator: ", ")
  }
}
