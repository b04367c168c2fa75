// Which of the legal layouts is taken: the least predicted time of all training steps among those that keep within the
// memory, where a layout with other bits than one rank's, or of a higher stage, has to be clearly faster.
//
// Predicted times are wrong by a quarter now and then, and what is measured differs from start to start: hence the margins.
// Without times the first that fits is taken, in the order of the search.

package import MeshLayout

/// A legal layout with what decides about it.
package struct LayoutOffer: Equatable, Sendable {
  package let shape: MeshShape
  /// Of the fullest rank.
  package let byteCount: Int
  /// Of all training steps; nil: nothing was measured.
  package let seconds: Double?
  /// Whether its bits are not those of one rank.
  package let hasOtherBits: Bool

  package init(shape: MeshShape, byteCount: Int, seconds: Double?, hasOtherBits: Bool) {
    self.shape = shape
    self.byteCount = byteCount
    self.seconds = seconds
    self.hasOtherBits = hasOtherBits
  }
}

package enum LayoutPick {
  /// Sums run in another order than on one rank: at least a tenth of the time must be saved for that.
  package static let otherBitsShare = 0.9
  /// A higher stage of ZeRO, each, and a pipeline: more messages than are counted, and no packed weights.
  package static let stageShare = 0.95

  /// - Parameter limit: bytes that a rank may take; nil: any.
  /// - Returns: index of an offer, and why it; of those that are too large the smallest. Nil without offers.
  package static func choose(
    _ offers: [LayoutOffer], limit: Int?
  ) -> (index: Int, reason: String)? {
    func fits(_ index: Int) -> Bool { limit.map { offers[index].byteCount <= $0 } ?? true }
    let fitting = offers.indices.filter(fits)
    guard let first = fitting.first else {
      return offers.indices.min { offers[$0].byteCount < offers[$1].byteCount }
        .map { ($0, "the leanest, although it does not fit") }
    }
    let times = offers.map(\.seconds)
    let timed = fitting.filter { times[$0] != nil }
    let best = timed.min { weighted(offers[$0]) < weighted(offers[$1]) }
    guard fitting.count > 1, let best, let seconds = times[best], let other = times[first] else {
      let why = fitting.count < offers.count ? " that fits" : ""
      return (first, offers.count > 1 ? "the first\(why)" : "the only legal one")
    }
    let among = fitting.count < offers.count ? "of those that fit " : ""
    guard best != first else {
      return (first, "\(among)no other is clearly faster by prediction")
    }
    let saved = Int((100 * (1 - seconds / other)).rounded())
    return (best, "\(among)by prediction \(saved) % faster than \(offers[first].shape)")
  }

  /// Seconds, made longer by what a layout must make up for.
  private static func weighted(_ offer: LayoutOffer) -> Double {
    var share = 1.0
    if offer.hasOtherBits { share *= otherBitsShare }
    for _ in ZeroStage.optimizer.rawValue..<offer.shape.zeroStage.rawValue { share *= stageShare }
    if offer.shape[.stages] > 1 { share *= stageShare }
    return (offer.seconds ?? .infinity) / share
  }

  /// Work of the busiest rank over an even part of all, by numbers alone: microbatches that do not divide, and the
  /// stages of a pipeline that wait for each other (specs of distributed systems, §5).
  package static func loadStretch(_ shape: MeshShape, microbatchCount: Int) -> Double {
    let (degree, stages) = (shape.dataParallelDegree, shape[.stages])
    let most = (microbatchCount + degree - 1) / degree
    let uneven = Double(most * degree) / Double(max(1, microbatchCount))
    return uneven * Double(most + stages - 1) / Double(max(1, most))
  }
}
