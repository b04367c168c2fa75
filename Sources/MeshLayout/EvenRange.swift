// The one way in which a count is cut evenly: contiguous ranges in order, lengths that differ by at most
// one, none left over.

import Basics

/// What `part` of `partCount` has of `count`; may be empty.
package func evenRange(of count: Int, part: Int, partCount: Int) -> Range<Int> {
  require(part >= 0 && part < partCount && count >= 0, "part \(part) of \(partCount) of \(count)")
  return part * count / partCount..<(part + 1) * count / partCount
}
