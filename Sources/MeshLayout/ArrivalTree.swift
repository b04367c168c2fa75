// The tree of `TreeOrder.swift` for operands that arrive in any order: two subtrees meet when the second of
// them is there, left operand + right operand, so the order of arrival changes no bit.

import Basics

/// Reduces operands `0..<count`, each inserted once, as `treeReduce` does.
package struct ArrivalTree<Partial> {
  private struct Node: Hashable {
    let height: Int
    let index: Int
  }

  package let count: Int
  private var waiting: [Node: Partial] = [:]
  /// The reduction, once all operands are there.
  package private(set) var result: Partial?

  /// - Precondition: `count > 0`.
  package init(count: Int) {
    require(count > 0, "a tree of \(count) operands has no root")
    self.count = count
  }

  /// How many partials are held now.
  /// - Cost: at most 2 log₂(count) + 2 where operands come in a cyclic order.
  package var livePartialCount: Int { waiting.count + (result == nil ? 0 : 1) }

  /// Puts an operand in its place and merges what can be merged. `combine` gets (left, right) and may
  /// reuse the memory of either.
  package mutating func insert<Failure: Error>(
    _ operand: Partial, at index: Int,
    combine: (_ left: Partial, _ right: Partial) throws(Failure) -> Partial
  ) throws(Failure) {
    require(index >= 0 && index < count, "operand \(index) of \(count)")
    var partial = operand
    var node = Node(height: 0, index: index)
    // Nodes of a level: all, half of them, a quarter, rounded up; an odd last one passes up unchanged.
    var levelCount = count
    while levelCount > 1 {
      let sibling = Node(height: node.height, index: node.index ^ 1)
      if sibling.index < levelCount {
        guard let other = waiting.removeValue(forKey: sibling) else {
          waiting[node] = partial
          return
        }
        let isLeft = node.index.isMultiple(of: 2)
        partial = try combine(isLeft ? partial : other, isLeft ? other : partial)
      }
      node = Node(height: node.height + 1, index: node.index / 2)
      levelCount = (levelCount + 1) / 2
    }
    result = partial
  }
}
