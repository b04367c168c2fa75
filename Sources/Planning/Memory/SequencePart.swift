import Basics
import MeshLayout

/// The part of the tokens that a rank of a sequence-parallel group runs, and of the weights of blocks.
struct SequencePart: Hashable {
  /// Around the ring, and among those that have one part of it and exchange heads.
  let ringRank: Int
  let ringDegree: Int
  let rank: Int
  let degree: Int
  /// Among those that cut weights, and these tokens, among them.
  let tensorRank: Int
  let tensorDegree: Int

  init(rank: Int, shape: MeshShape) {
    let place = shape.coordinates(of: rank)
    (ringRank, ringDegree) = (place[.ring, default: 0], shape[.ring])
    (self.rank, degree) = (place[.sp, default: 0], shape[.sp])
    (tensorRank, tensorDegree) = (place[.tp, default: 0], shape[.tp])
  }

  /// Own tokens of a segment.
  func count(of tokenCount: Int) -> Int {
    evenRange(of: ringCount(of: tokenCount), part: place, partCount: shareCount).count
  }

  /// Among those that have one part of the ring, neighbors of which cut weights among them.
  var place: Int { rank * tensorDegree + tensorRank }
  var shareCount: Int { degree * tensorDegree }

  /// All that have parts.
  var partCount: Int { ringDegree * degree * tensorDegree }

  /// How the tokens of a segment come to all ranks: from those who cut weights together, the group's part of the
  /// ring, then all of it.
  func gatherRounds(of tokenCount: Int) -> [(count: Int, peerCount: Int)] {
    [
      (groupCount(of: tokenCount), tensorDegree - 1), (ringCount(of: tokenCount), degree - 1),
      (tokenCount, ringDegree - 1),
    ].filter { $0.1 > 0 }
  }

  /// Tokens of a segment that those have who cut weights among them.
  func groupCount(of tokenCount: Int) -> Int {
    evenRange(of: ringCount(of: tokenCount), part: rank, partCount: degree).count
  }

  /// Tokens of a segment that a part of the ring has: the own one, or another.
  func ringCount(of tokenCount: Int, at rank: Int? = nil) -> Int {
    evenRange(of: tokenCount, part: rank ?? ringRank, partCount: ringDegree).count
  }
}
