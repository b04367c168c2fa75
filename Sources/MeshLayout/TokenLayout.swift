// Which tokens and which heads a rank of a sequence-parallel group holds: integer arithmetic.
//
// A sample's tokens come in segments (video, then text). Every segment is cut into contiguous ranges whose
// lengths differ by at most one, one for each rank; nothing is padded. A rank's own tokens are its
// ranges one after the other.
// Source: DeepSpeed-Ulysses (2309.14509) §3.

import Basics

/// A tensor [B, tokens, width] over `partCount` ranks: by tokens between attentions, by heads inside.
package struct TokenLayout: Hashable, Sendable {
  package let sampleCount: Int
  /// Tokens of each segment.
  package let segments: [Int]
  /// Elements of a token over all heads.
  package let width: Int
  package let partCount: Int
  /// Where the segments are pieces of stretches that are cut over all parts of all pieces at once.
  private let piece: Piece?

  private struct Piece: Hashable {
    let index: Int
    let count: Int
    let stretches: [Int]
  }

  package init(sampleCount: Int, segments: [Int], width: Int, partCount: Int) {
    require(
      partCount > 0 && segments.allSatisfy { $0 >= 0 },
      "segments \(segments) over \(partCount) ranks")
    self.sampleCount = sampleCount
    self.segments = segments
    self.width = width
    self.partCount = partCount
    piece = nil
  }

  /// One of `pieceCount` pieces of stretches of tokens; pieces × parts cut each stretch evenly.
  package init(
    sampleCount: Int, stretches: [Int], piece: Int, pieceCount: Int, width: Int, partCount: Int
  ) {
    require(
      partCount > 0 && stretches.allSatisfy { $0 >= 0 },
      "stretches \(stretches) over \(pieceCount) × \(partCount) ranks")
    self.sampleCount = sampleCount
    segments = stretches.map { evenRange(of: $0, part: piece, partCount: pieceCount).count }
    self.width = width
    self.partCount = partCount
    self.piece =
      pieceCount == 1 ? nil : Piece(index: piece, count: pieceCount, stretches: stretches)
  }

  /// Tokens of a sample.
  package var tokenCount: Int { segments.reduce(0, +) }

  /// Width of the heads that a part holds.
  /// - Precondition: `partCount` divides the width.
  package var partWidth: Int {
    require(width % partCount == 0, "a width of \(width) over \(partCount) ranks")
    return width / partCount
  }

  /// Tokens of a sample that a part holds.
  package func tokenCount(of part: Int) -> Int {
    ranges(of: part).reduce(0) { $0 + $1.count }
  }

  /// Where a part's tokens lie among all tokens of a sample, in order.
  package func ranges(of part: Int) -> [Range<Int>] {
    var start = 0
    return segments.indices.map { index in
      defer { start += segments[index] }
      let own = range(of: part, segment: index)
      return start + own.lowerBound..<start + own.upperBound
    }
  }

  /// A part's tokens of a segment.
  private func range(of part: Int, segment: Int) -> Range<Int> {
    guard let piece else {
      return evenRange(of: segments[segment], part: part, partCount: partCount)
    }
    let count = piece.stretches[segment]
    let start = evenRange(of: count, part: piece.index, partCount: piece.count).lowerBound
    let own = evenRange(
      of: count, part: piece.index * partCount + part, partCount: piece.count * partCount)
    return own.lowerBound - start..<own.upperBound - start
  }
}
