// The mesh of ranks: named axes, coordinates, groups along an axis, and which shapes are legal.
//
// Rank order is mixed radix with `stages` slowest and `tp` fastest: the axes that talk most are
// neighbours in rank, hence on one node under the usual placement.

import Basics

/// A named direction of the mesh.
package enum Axis: String, CaseIterable, Codable, Hashable, Sendable, CodingKeyRepresentable {
  // In rank order, slowest first.
  /// Pipeline stages or local blocks.
  case stages
  /// Data parallel with replicated state.
  case dp
  /// Data parallel with optimizer state (and what else the level says) sharded.
  case zero
  /// Ring attention: keys and values travel.
  case ring
  /// Ulysses sequence parallel: heads against tokens by all-to-all.
  case sp
  /// Tensor parallel: columns and rows of the weights of blocks, and tokens between them.
  case tp
}

/// What a mesh shape must fit.
package struct MeshDemands: Equatable, Sendable {
  package var rankCount: Int
  package var headCount: Int
  package var blockCount: Int
  package var microbatchCount: Int

  package init(rankCount: Int, headCount: Int, blockCount: Int, microbatchCount: Int) {
    self.rankCount = rankCount
    self.headCount = headCount
    self.blockCount = blockCount
    self.microbatchCount = microbatchCount
  }
}

/// Sizes of the axes of a mesh; an axis that is not named has size 1.
package struct MeshShape: Equatable, Hashable, Codable, Sendable, CustomStringConvertible {
  private var sizes: [Axis: Int]
  /// What the ranks of a replica shard among them.
  package var zeroStage: ZeroStage
  /// The ranks, last of all, that hold the generator alone while it is distilled, the others holding what
  /// scores it; nil where all ranks have a part of every role.
  package var generatorRanks: GeneratorRanks?

  package init(_ sizes: [Axis: Int] = [:], zeroStage: ZeroStage = .optimizer) {
    self.sizes = sizes.filter { $0.value != 1 }
    self.zeroStage = zeroStage
  }

  /// All ranks on one data-parallel axis.
  package static func dataParallel(_ rankCount: Int) -> MeshShape { MeshShape([.dp: rankCount]) }

  package subscript(axis: Axis) -> Int {
    get { sizes[axis, default: 1] }
    set { sizes[axis] = newValue == 1 ? nil : newValue }
  }

  /// How many ranks the mesh has.
  package var rankCount: Int { Axis.allCases.reduce(1) { $0 * self[$1] } }

  /// Over how many ranks the microbatches of a step are spread.
  package var dataParallelDegree: Int { self[.dp] * self[.zero] }

  /// Over how many ranks the tokens of a microbatch are spread.
  package var sequenceDegree: Int { self[.ring] * self[.sp] * self[.tp] }

  /// Whether gradients are summed over several data-parallel ranks after every round of microbatches.
  package var sumsRounds: Bool {
    zeroStage != .optimizer && (self[.zero] > 1 || self[.stages] == 1)
  }

  /// Those that are more than 1, in rank order.
  package var axes: String {
    Axis.allCases.filter { self[$0] != 1 }.map { "\($0.rawValue) \(self[$0])" }
      .joined(separator: " × ")
  }

  package var description: String {
    let stage = zeroStage == .optimizer ? "" : ", ZeRO stage \(zeroStage.rawValue)"
    let roles = generatorRanks.map { ", split: \(rankCount - $0.count) score + \($0)" } ?? ""
    return rankCount == 1 ? "one rank" : axes + stage + roles
  }

  /// Every rule that the shape breaks, each with its numbers; empty when it is legal.
  package func problems(with demands: MeshDemands) -> [MeshLayoutError] {
    var problems: [MeshLayoutError] = []
    func require(_ holds: Bool, _ code: MeshLayoutError.Code, _ message: String) {
      if !holds { problems.append(MeshLayoutError(code: code, message: message)) }
    }
    for axis in Axis.allCases {
      require(
        self[axis] > 0, .axisNotPositive,
        "mesh.\(axis.rawValue) is \(self[axis]); it must be 1 or more")
    }
    if !problems.isEmpty { return problems }
    require(
      rankCount == demands.rankCount, .rankCountMismatch,
      """
      the mesh (\(self)) has \(rankCount) ranks, but \(demands.rankCount) were started: change \
      mesh.* or start \(rankCount)
      """)
    for axis in [Axis.sp, .tp] {
      require(
        demands.headCount % self[axis] == 0, .doesNotDivide,
        "mesh.\(axis.rawValue) = \(self[axis]) does not divide the \(demands.headCount) heads")
    }
    require(
      demands.blockCount >= self[.stages], .moreStagesThanBlocks,
      "mesh.stages = \(self[.stages]), but the model has only \(demands.blockCount) blocks")
    do { _ = try share(of: demands.microbatchCount) } catch { problems.append(error) }
    return problems
  }

  /// How the data-parallel ranks share `microbatchCount` microbatches.
  ///
  /// Where gradients are summed over the ranks of a replica in every round, a round's microbatches are neighbors, so that
  /// ranks are the lowest levels of the tree; else each rank, or pipeline, has neighbors, and a subtree of its own.
  package func share(of microbatchCount: Int) throws(MeshLayoutError) -> MicrobatchShare {
    try MicrobatchShare(
      microbatchCount: microbatchCount, rankCount: dataParallelDegree,
      order: sumsRounds ? .interleaved(groups: self[.dp]) : .contiguous)
  }

  /// Which of the data-parallel ranks one is: those of a pipeline, and those that share tokens, are one.
  package func dataRank(of rank: Int) -> Int {
    rank % (rankCount / self[.stages]) / sequenceDegree
  }

  // MARK: Coordinates

  /// Where `rank` stands on every axis.
  package func coordinates(of rank: Int) -> [Axis: Int] {
    require(rank >= 0 && rank < rankCount, "rank \(rank) of a mesh of \(rankCount)")
    var rest = rank
    var coordinates: [Axis: Int] = [:]
    for axis in Axis.allCases.reversed() {
      coordinates[axis] = rest % self[axis]
      rest /= self[axis]
    }
    return coordinates
  }

  /// The rank at `coordinates`; an axis that is left out is at 0.
  package func rank(at coordinates: [Axis: Int]) -> Int {
    Axis.allCases.reduce(0) { rank, axis in
      let coordinate = coordinates[axis, default: 0]
      require(
        coordinate >= 0 && coordinate < self[axis],
        "coordinate \(coordinate) on axis \(axis.rawValue) of size \(self[axis])")
      return rank * self[axis] + coordinate
    }
  }

  /// The ranks that differ from `rank` in `axes` only, itself included, in rank order.
  package func group(along axes: Axis..., of rank: Int) -> [Int] {
    group(along: axes, of: rank)
  }

  package func group(along axes: [Axis], of rank: Int) -> [Int] {
    let own = coordinates(of: rank).filter { !axes.contains($0.key) }
    return (0..<rankCount).filter { other in
      coordinates(of: other).filter { !axes.contains($0.key) } == own
    }
  }
}
