// Who passes a broadcast to whom: places are counted from the root; the lowest set bit of a place
// is the distance to its parent, and its children lie at the smaller powers of two.

import Basics

/// The place of one rank in the broadcast tree of a group.
package struct BinomialTree: Equatable, Sendable {
  /// nil for the root.
  package let parent: Int?
  /// Farthest first: they have the most to pass on.
  package let children: [Int]

  package init(rank: Int, root: Int, size: Int) {
    require(
      rank >= 0 && rank < size && root >= 0 && root < size,
      "rank \(rank) and root \(root) in a group of \(size)")
    let place = (rank - root + size) % size
    var reach = 1
    while reach < size, place & reach == 0 { reach *= 2 }
    parent = place == 0 ? nil : (place - reach + root) % size
    var children: [Int] = []
    while reach > 1 {
      reach /= 2
      if place + reach < size { children.append((place + reach + root) % size) }
    }
    self.children = children
  }
}
