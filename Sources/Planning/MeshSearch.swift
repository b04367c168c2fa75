// Which layouts a number of ranks allows, and which one is taken.
//
// Placed today: `zero` (data parallel with sharded state, stages 1 to 3) and `sp` (Ulysses). Data parallelism
// comes first as long as the microbatches divide: it exchanges gradients once a step, `sp` activations in
// every block (specs of distributed systems, §4). A lower stage comes before a higher one, which needs less
// memory and sends more.

package import MeshLayout

/// What a layout must fit. Degrees that are nil are free.
package struct MeshSearch: Equatable, Sendable {
  package var rankCount: Int
  package var microbatchCount: Int
  package var headCount: Int
  package var zero: Int?
  package var sp: Int?
  package var stage: ZeroStage?
  /// Why tokens cannot be shared in this run; nil where they can.
  package var sequenceProblem: String?

  package init(
    rankCount: Int, microbatchCount: Int, headCount: Int, zero: Int? = nil, sp: Int? = nil,
    stage: ZeroStage? = nil, sequenceProblem: String? = nil
  ) {
    self.rankCount = rankCount
    self.microbatchCount = microbatchCount
    self.headCount = headCount
    self.zero = zero
    self.sp = sp
    self.stage = stage
    self.sequenceProblem = sequenceProblem
  }

  /// Legal layouts, those with the least `sp` first, of these the lowest stage.
  package var shapes: [MeshShape] {
    (1...max(rankCount, 1)).flatMap { sp -> [MeshShape] in
      guard rankCount % sp == 0 else { return [] }
      return stages.map { MeshShape([.zero: rankCount / sp, .sp: sp], zeroStage: $0) }
        .filter { problems(of: $0).isEmpty }
    }
  }

  /// Stages that are open. One rank has nothing to shard.
  private var stages: [ZeroStage] {
    if rankCount == 1 { return [.optimizer] }
    return stage.map { [$0] } ?? ZeroStage.allCases
  }

  /// Rules that a layout breaks, by the key that is at fault.
  package struct Problem: Equatable, Sendable {
    package let key: String
    package let message: String
  }

  /// Why there is no layout; empty when there is one.
  package var problems: [Problem] {
    guard shapes.isEmpty else { return [] }
    // The layout that was asked for, by the degree that is given; else data parallelism alone.
    if let sp, sp < 1 || rankCount % sp != 0 {
      return [
        Problem(
          key: "mesh.sp",
          message: "is \(sp), which does not divide the \(rankCount) ranks\(nearest)")
      ]
    }
    if let zero, sp == nil {
      let degree = zero > 0 ? rankCount / zero : 0
      guard degree * zero == rankCount, degree > 0 else {
        return [
          Problem(
            key: "mesh.zero",
            message: "is \(zero), which does not divide the \(rankCount) ranks\(nearest)")
        ]
      }
      return problems(of: shape(zero, sp: degree)).map {
        $0.key == "mesh.sp"
          ? Problem(
            key: "mesh.zero",
            message: "is \(zero), so that \(degree) ranks would share the tokens of a microbatch; "
              + "mesh.sp \($0.message)\(nearest)")
          : Problem(key: $0.key, message: $0.message + nearest)
      }
    }
    let degree = sp ?? 1
    return problems(of: shape(rankCount / degree, sp: degree)).map {
      Problem(key: $0.key, message: $0.message + nearest)
    }
  }

  private func shape(_ zero: Int, sp: Int) -> MeshShape {
    MeshShape([.zero: zero, .sp: sp], zeroStage: stages[0])
  }

  private func problems(of shape: MeshShape) -> [Problem] {
    let (dataDegree, degree) = (shape[.zero], shape[.sp])
    var problems: [Problem] = []
    func require(_ holds: Bool, _ key: String, _ message: String) {
      if !holds { problems.append(Problem(key: key, message: message)) }
    }
    require(
      sp == nil || sp == degree, "mesh.sp", "is \(sp ?? 0), this layout has \(degree)")
    require(
      zero == nil || zero == dataDegree, "mesh.zero",
      "is \(zero ?? 0), but \(rankCount) ranks with mesh.sp \(degree) leave \(dataDegree)")
    require(
      headCount % degree == 0, "mesh.sp",
      "is \(degree), which does not divide the \(headCount) attention heads")
    require(
      dataDegree <= microbatchCount, "batch.microbatches",
      "is \(microbatchCount), but \(dataDegree) data-parallel ranks need one each")
    require(
      shape.zeroStage == .optimizer || dataDegree > microbatchCount
        || microbatchCount % dataDegree == 0, "mesh.zeroStage",
      "is \(shape.zeroStage.rawValue), with which \(dataDegree) data-parallel ranks sum gradients in "
        + "every round of microbatches, but they do not divide the \(microbatchCount) of "
        + "batch.microbatches")
    if degree > 1, let sequenceProblem { require(false, "mesh.sp", sequenceProblem) }
    return problems
  }

  /// What would be legal instead.
  private var nearest: String {
    var free = self
    (free.zero, free.sp, free.stage) = (nil, nil, nil)
    if let shape = free.shapes.first { return "; legal here: \(Self.keys(of: shape))" }
    for count in stride(from: rankCount - 1, to: 0, by: -1) {
      free.rankCount = count
      if let shape = free.shapes.first {
        return "; the next smaller number of ranks with a layout is \(count) "
          + "(\(Self.keys(of: shape)))"
      }
    }
    return ""
  }

  private static func keys(of shape: MeshShape) -> String {
    "mesh.zero \(shape[.zero]), mesh.sp \(shape[.sp])"
      + (shape.zeroStage == .optimizer ? "" : ", mesh.zeroStage \(shape.zeroStage.rawValue)")
  }
}
