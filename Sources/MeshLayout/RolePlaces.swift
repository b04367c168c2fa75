// Which ranks have which role where roles are split while a generator is distilled: the first ranks score
// its samples (the real and the fake network), the last ones make them and are taught. Each microbatch has
// one rank of either kind.

import Basics

/// The ranks of the generator.
package struct GeneratorRanks: Equatable, Hashable, Codable, Sendable, CustomStringConvertible {
  package var count: Int
  /// What they shard among them.
  package var zeroStage: ZeroStage

  package init(_ count: Int, zeroStage: ZeroStage = .optimizer) {
    self.count = count
    self.zeroStage = zeroStage
  }

  package var description: String {
    "\(count) generator rank\(count == 1 ? "" : "s")"
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
    rank < scoreShare.rankCount ? .score : .generator
  }

  /// Where the first rank of a role stands among all.
  package func firstRank(of role: RankRole) -> Int {
    role == .score ? 0 : scoreShare.rankCount
  }

  /// How the ranks of a role share the microbatches.
  package func share(of role: RankRole) -> MicrobatchShare {
    role == .score ? scoreShare : generatorShare
  }

  /// The microbatches of a rank among all.
  package func microbatches(of rank: Int) -> [Int] {
    let role = role(of: rank)
    return share(of: role).microbatches(of: rank - firstRank(of: role))
  }

  /// The rank among all that has a microbatch in a role.
  package func rank(_ role: RankRole, of microbatch: Int) -> Int {
    firstRank(of: role) + share(of: role).owner(of: microbatch)
  }
}

extension MeshShape {
  /// Who does what; nil where roles are not split.
  /// - Precondition: no axis but `zero` is more than 1, and both roles have ranks.
  /// - Throws: `MeshLayoutError` where the microbatches do not go round in one of the sets.
  package func roles(of microbatchCount: Int) throws(MeshLayoutError) -> RolePlaces? {
    guard let generatorRanks else { return nil }
    require(
      self[.zero] == rankCount && (1..<rankCount).contains(generatorRanks.count),
      "\(generatorRanks) of a mesh of \(self)")
    return try RolePlaces(
      scoreShape: MeshShape([.zero: rankCount - generatorRanks.count], zeroStage: zeroStage),
      generatorShape: MeshShape(
        [.zero: generatorRanks.count], zeroStage: generatorRanks.zeroStage),
      microbatchCount: microbatchCount)
  }
}
