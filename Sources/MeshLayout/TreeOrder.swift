// The one order in which partial sums meet (contract 4.2): neighbours pairwise, level by level,
// left operand + right operand, ((0+1)+(2+3))+…; at an odd level the last operand passes up
// unchanged. An aligned power-of-two range of operands is a subtree, so a rank that owns such a
// range does its subtree alone and the rest of the tree runs across ranks, with the same bits.

import Basics

/// Reduces operands `0..<count` in the fixed tree order.
///
/// `operand` is asked once for every index, in rising order.
/// - Precondition: `count > 0`.
/// - Cost: `count - 1` combinations; at most log₂(count) + 2 operands are alive at once.
package func treeReduce<Partial, Failure: Error>(
  count: Int,
  operand: (Int) throws(Failure) -> Partial,
  combine: (Partial, Partial) throws(Failure) -> Partial
) throws(Failure) -> Partial {
  require(count > 0, "a reduction of \(count) operands has no value")
  var counter = BinaryCounter<Partial>()
  for index in 0..<count { try counter.push(operand(index), combine: combine) }
  guard let result = try counter.finish(combine: combine) else {
    trap("a counter of \(count) operands is empty")
  }
  return result
}

/// How many partial results a reduction of `count` operands in index order holds at most, beside the operand that is
/// being added: those of the binary digits of its index.
package func heldPartialCount(ofTree count: Int) -> Int {
  (0..<max(count, 1)).reduce(0) { max($0, $1.nonzeroBitCount) }
}

/// Reduces neighborhoods of equal size in the fixed tree order, and what they give likewise.
/// - Precondition: the size divides the count.
package func treeReduce<Partial, Failure: Error>(
  ofEqual size: Int, count: Int,
  operand: (Int) throws(Failure) -> Partial,
  combine: (Partial, Partial) throws(Failure) -> Partial
) throws(Failure) -> Partial {
  require(size > 0 && count % size == 0, "neighborhoods of \(size) among \(count) operands")
  return try treeReduce(
    count: count / size,
    operand: { neighborhood throws(Failure) in
      try treeReduce(
        count: size,
        operand: { index throws(Failure) in try operand(neighborhood * size + index) },
        combine: combine)
    }, combine: combine)
}

/// Reduces an array in the fixed tree order; nil when it is empty.
package func treeReduce<Partial, Failure: Error>(
  _ operands: [Partial], combine: (Partial, Partial) throws(Failure) -> Partial
) throws(Failure) -> Partial? {
  if operands.isEmpty { return nil }
  return try treeReduce(
    count: operands.count, operand: { index throws(Failure) in operands[index] }, combine: combine)
}

/// Accumulates operands in index order with at most log₂(n) + 1 live partials.
///
/// Like the carry of a binary number: two subtrees of equal height merge at once. The result
/// equals `treeReduce` over all pushed operands for every count: the live subtrees have falling
/// heights from left to right, and an odd last operand that passes up meets its left neighbour
/// exactly when `finish` folds from the right.
package struct BinaryCounter<Partial> {
  private var subtrees: [(height: Int, partial: Partial)] = []
  /// How many operands were pushed since the counter was last empty.
  package private(set) var count = 0

  package init() {}

  package var isEmpty: Bool { count == 0 }

  /// How many partials are held now.
  package var livePartialCount: Int { subtrees.count }

  /// Adds the next operand and merges what can be merged. `combine` gets (left, right) and may
  /// reuse the memory of either.
  package mutating func push<Failure: Error>(
    _ operand: Partial, combine: (Partial, Partial) throws(Failure) -> Partial
  ) throws(Failure) {
    var height = 0
    var partial = operand
    while let last = subtrees.last, last.height == height {
      subtrees.removeLast()
      partial = try combine(last.partial, partial)
      height += 1
    }
    subtrees.append((height, partial))
    count += 1
  }

  /// The reduction of everything pushed, or nil if nothing was; the counter is empty afterwards.
  package mutating func finish<Failure: Error>(
    combine: (Partial, Partial) throws(Failure) -> Partial
  ) throws(Failure) -> Partial? {
    count = 0
    guard var partial = subtrees.popLast()?.partial else { return nil }
    while let left = subtrees.popLast() { partial = try combine(left.partial, partial) }
    return partial
  }
}
