// Sums over the rows of a layer's inputs: gradients of weights, biases, gains and modulations.
//
// As is fastest they are one sum. In fixed blocks each block is summed by itself, piece by piece in order, and
// the blocks' sums meet in the one tree (contract 4.2): then ranks that have whole blocks, neighbors and a power
// of two of them, have subtrees of it, and their number changes no bit.

import Basics
import DenseKernels
import MeshLayout
import Tensors

/// How an operation sums over the rows of its input.
package enum RowSums: Sendable {
  /// All rows at once.
  case whole
  /// Block by block. Products are then those of the kernel that does not depend on the number of rows.
  case blocks(RowBlocks)
  /// Other ranks have the same rows, and one of them counts: parameters get no gradient here.
  case countedElsewhere
  /// The same of a layer whose outputs may be a part of those of one rank; all rows at once.
  case columns(isCounted: Bool)

  package var isCounted: Bool {
    switch self {
    case .countedElsewhere: false
    case .columns(let isCounted): isCounted
    case .whole, .blocks: true
    }
  }

  package var isInBlocks: Bool { blocks != nil }

  var blocks: RowBlocks? {
    if case .blocks(let blocks) = self { blocks } else { nil }
  }

  /// Of products whose rows or columns may be a part of those of one rank.
  var kernelChoice: KernelChoice {
    switch self {
    case .whole, .countedElsewhere: .fastest
    case .blocks, .columns: .sameForParts
    }
  }
}

/// Blocks of the tokens of every sample.
package struct RowBlocks: Sendable {
  /// Rows of a block that follow each other, of one sample.
  struct Piece {
    let sample: Int
    let rows: Range<Int>
    /// Place of the first of them in its sample.
    let firstToken: Int
  }

  /// Tokens of a sample.
  package let tokenCount: Int
  /// By block, ranges of a sample's tokens, in order.
  package let blocks: [[Range<Int>]]

  /// - Parameter blocks: a power of two of them; together they are all tokens.
  package init(tokenCount: Int, blocks: [[Range<Int>]]) {
    require(
      blocks.joined().reduce(0) { $0 + $1.count } == tokenCount,
      "blocks \(blocks) of \(tokenCount) tokens")
    self.tokenCount = tokenCount
    self.blocks = blocks.map { $0.filter { !$0.isEmpty } }
  }

  /// What a block consists of, samples in order.
  func pieces(of block: Int, rowCount: Int) -> [Piece] {
    let sampleCount = tokenCount == 0 ? 0 : rowCount / tokenCount
    require(
      sampleCount * tokenCount == rowCount, "\(rowCount) rows of samples of \(tokenCount) tokens")
    return (0..<sampleCount).flatMap { sample in
      blocks[block].map { tokens in
        let start = sample * tokenCount
        return Piece(
          sample: sample, rows: start + tokens.lowerBound..<start + tokens.upperBound,
          firstToken: tokens.lowerBound)
      }
    }
  }
}

extension Tape {
  /// Sums over blocks of rows into gradients.
  ///
  /// - Parameter add: adds a piece's terms to the sums of its block, or begins those with it. It is asked for every
  ///   piece once, in order, with nil for a gradient that is not wanted.
  /// - Cost: holds log₂ of the number of blocks partial sums of each.
  func sum(
    over blocks: RowBlocks, rowCount: Int, into gradients: [GradientBuffer<Scalar>?],
    add: (_ piece: RowBlocks.Piece, _ sums: [GradientBuffer<Scalar>?]) -> Void
  ) {
    // The first block with rows sums where the results belong: it is the left operand of all that follow.
    var targets = gradients.map { gradient in
      gradient.flatMap { $0.accumulates ? nil : $0.buffer }
    }
    let sums = treeReduce(
      count: blocks.blocks.count,
      operand: { block -> [Buffer<Scalar>?]? in
        let pieces = blocks.pieces(of: block, rowCount: rowCount)
        guard !pieces.isEmpty else { return nil }
        let partials = gradients.indices.map { index in
          gradients[index].map { targets[index].take() ?? scratch([$0.count]).buffer }
        }
        for (index, piece) in pieces.enumerated() {
          add(
            piece,
            partials.map { partial in
              partial.map { GradientBuffer($0, accumulates: index > 0) }
            })
        }
        return partials
      },
      combine: { left, right in
        guard let left, let right else { return left ?? right }
        for case (let left?, let right?) in zip(left, right) { Scalar.add(1, right, to: left) }
        return left
      })
    for (index, gradient) in gradients.enumerated() {
      guard let gradient else { continue }
      guard let sum = sums?[index] else {
        if !gradient.accumulates { gradient.buffer.clear() }
        continue
      }
      if gradient.accumulates { Scalar.add(1, sum, to: gradient.buffer) }
    }
  }
}
