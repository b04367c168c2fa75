// Fixed blocks of tokens: sums over tokens are made block by block, and the blocks' sums meet in the tree of
// TreeOrder.swift. Ranks that share tokens have neighboring blocks, an aligned subtree of them, so the bits do
// not depend on how many they are.
//
// Source: rule 2 of the specification of distributed systems, §6.

import Basics

/// The blocks that one of several parts of the tokens consists of.
package struct TokenBlocks: Hashable, Sendable {
  /// Blocks of every segment, over all parts. Bits of canonical runs depend on it, so it stays as it is: another
  /// number is another mode.
  package static let count = 8

  /// Numbers of parts that have whole blocks.
  package static let partCounts = (1...count).filter { count % $0 == 0 }

  /// By own block, its tokens among the own ones of a sample: a range of every segment, perhaps empty. Own tokens
  /// are as `TokenLayout` says.
  package let blocks: [[Range<Int>]]
  /// Own tokens of a sample.
  package let tokenCount: Int

  /// - Parameter segments: tokens of each segment over all parts.
  /// - Precondition: the number of parts divides that of the blocks.
  package init(segments: [Int], part: Int, partCount: Int) {
    require(
      Self.count % partCount == 0, "\(Self.count) blocks of tokens over \(partCount) parts")
    var start = 0
    let places = segments.map { tokenCount in
      // The even cut of a part's tokens into its blocks is that of all tokens into all blocks.
      let own = evenRange(of: tokenCount, part: part, partCount: partCount)
      let offset = start - own.lowerBound
      start += own.count
      return (tokenCount: tokenCount, offset: offset)
    }
    blocks = evenRange(of: Self.count, part: part, partCount: partCount).map { block in
      places.map { place in
        let range = evenRange(of: place.tokenCount, part: block, partCount: Self.count)
        return place.offset + range.lowerBound..<place.offset + range.upperBound
      }
    }
    tokenCount = start
  }

  /// How many partial sums the tree over the own blocks holds at once beside the result; a block without a token
  /// has none.
  package var heldPartialCount: Int {
    var (live, most) = (0, 0)
    _ = treeReduce(
      count: blocks.count,
      operand: { block in
        let hasTokens = blocks[block].contains { !$0.isEmpty }
        live += hasTokens ? 1 : 0
        most = max(most, live)
        return hasTokens
      },
      combine: { left, right in
        live -= left && right ? 1 : 0
        return left || right
      })
    return max(most - 1, 0)
  }
}
