// Which ranks have which role where roles are split while a generator is distilled: the first ranks score
// its samples (the real and the fake network), the last ones make them and are taught. Each set is a mesh of
// its own. A microbatch has one rank of either kind, or the ranks that compute it together there.

import Basics

/// The ranks of the generator, a mesh of their own.
package struct GeneratorRanks: Equatable, Hashable, Codable, Sendable, CustomStringConvertible {
  private let sizes: [Axis: Int]
  /// What they shard among them.
  package let zeroStage: ZeroStage

  /// Ranks that share microbatches alone.
  package init(_ count: Int, zeroStage: ZeroStage = .optimizer) {
    self.init(MeshShape([.zero: count], zeroStage: zeroStage))
  }

  package init(_ shape: MeshShape) {
    sizes = Dictionary(uniqueKeysWithValues: Axis.allCases.map { ($0, shape[$0]) })
    zeroStage = shape.zeroStage
  }

  package var shape: MeshShape { MeshShape(sizes, zeroStage: zeroStage) }
  package var count: Int { shape.rankCount }

  package var description: String {
    let axes = shape[.zero] == count ? "" : " (\(shape.axes))"
    return "\(count) generator rank\(count == 1 ? "" : "s")\(axes)"
      + (zeroStage == .optimizer || count == 1 ? "" : " at stage \(zeroStage.rawValue)")
  }
}

/// A part of the ranks.
package enum RankRole: String, CaseIterable, Codable, Sendable {
  /// Holds W, the fake network's adapter and the discriminator.
  case score
  case generator
}

/// Who does what with which microbatch.
package struct RolePlaces: Equatable, Sendable {
  /// The mesh of the score ranks, and that of the generator ranks.
  package let shapes: [RankRole: MeshShape]
  private let scoreShare: MicrobatchShare
  private let generatorShare: MicrobatchShare

  /// - Throws: `MeshLayoutError` where the microbatches do not go round in one of the sets.
  fileprivate init(
    scoreShape: MeshShape, generatorShape: MeshShape, microbatchCount: Int
  ) throws(MeshLayoutError) {
    shapes = [.score: scoreShape, .generator: generatorShape]
    scoreShare = try scoreShape.share(of: microbatchCount)
    generatorShare = try generatorShape.share(of: microbatchCount)
  }

  package func role(of rank: Int) -> RankRole {
    rank < shape(of: .score).rankCount ? .score : .generator
  }

  /// Where the first rank of a role stands among all.
  package func firstRank(of role: RankRole) -> Int {
    role == .score ? 0 : shape(of: .score).rankCount
  }

  private func shape(of role: RankRole) -> MeshShape {
    guard let shape = shapes[role] else { trap("\(role) has no shape") }
    return shape
  }

  /// How the ranks of a role share the microbatches.
  package func share(of role: RankRole) -> MicrobatchShare {
    role == .score ? scoreShare : generatorShare
  }

  /// The microbatches of a rank among all.
  package func microbatches(of rank: Int) -> [Int] {
    let role = role(of: rank)
    return share(of: role)
      .microbatches(of: shape(of: role).dataRank(of: rank - firstRank(of: role)))
  }

  /// The ranks among all that have a microbatch in a role, in order: those that compute it together.
  package func ranks(_ role: RankRole, of microbatch: Int) -> [Int] {
    let (shape, owner) = (shape(of: role), share(of: role).owner(of: microbatch))
    return (0..<shape.rankCount).filter { shape.dataRank(of: $0) == owner }
      .map { firstRank(of: role) + $0 }
  }

  /// From which rank of the other role a rank gets the latents of one of its microbatches, which all ranks that
  /// compute it have whole: these are taken in turn.
  package func source(of microbatch: Int, for rank: Int) -> Int {
    let role = role(of: rank)
    let others = ranks(role == .score ? .generator : .score, of: microbatch)
    guard let place = ranks(role, of: microbatch).firstIndex(of: rank) else {
      trap("rank \(rank) does not compute microbatch \(microbatch)")
    }
    return others[place % others.count]
  }

  /// To how many ranks of the other role a rank sends the latents of each of its microbatches.
  package func receiverCount(of rank: Int) -> Int {
    let role = role(of: rank)
    guard let microbatch = microbatches(of: rank).first else { return 0 }
    return ranks(role == .score ? .generator : .score, of: microbatch)
      .count { source(of: microbatch, for: $0) == rank }
  }
}

extension MeshShape {
  /// Who does what; nil where roles are not split. The axes of the score ranks are those of all ranks, but for
  /// `zero`.
  /// - Precondition: both roles have ranks, and these axes divide the score ranks.
  /// - Throws: `MeshLayoutError` where the microbatches do not go round in one of the sets.
  package func roles(of microbatchCount: Int) throws(MeshLayoutError) -> RolePlaces? {
    guard let generatorRanks else { return nil }
    return try RolePlaces(
      scoreShape: scoreShape, generatorShape: generatorRanks.shape,
      microbatchCount: microbatchCount)
  }

  /// The mesh of the ranks that do not hold the generator.
  /// - Precondition: there are such ranks, and all axes but `zero` divide them.
  package var scoreShape: MeshShape {
    let scoreCount = rankCount - (generatorRanks?.count ?? 0)
    let unit = rankCount / self[.zero]
    require(
      (1...rankCount).contains(scoreCount) && scoreCount % unit == 0,
      "\(scoreCount) score ranks of a mesh of \(self)")
    var shape = self
    shape.generatorRanks = nil
    shape[.zero] = scoreCount / unit
    return shape
  }
}
