// Fixed slices of heads and hidden units: sums over them are made slice by slice, and the slices' sums meet in the tree
// of TreeOrder.swift. Ranks that cut weights have neighboring slices, an aligned subtree of them, so the bits do not
// depend on how many they are.
//
// Source: rule 2 of the specification of distributed systems, §6.

/// Slices of a block's weights: the largest power of two up to 8 that divides heads and hidden units. Bits of canonical
/// runs depend on it, so it stays as it is.
package func sliceCount(heads: Int, hiddenUnits: Int) -> Int {
  var count = 8
  while count > 1 && (heads % count != 0 || hiddenUnits % count != 0) { count /= 2 }
  return count
}
