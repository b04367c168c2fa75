// Which items of a row belong to a share of them that is spread evenly.

/// Whether item `index` (from 0) is chosen where `share` of all are: of the first n items the nearest
/// whole number to n · share is, halves rounded up.
/// - Source: LiteGen's rule of selective recomputation (specification of Vchitect-2.0, §6.5), without its
///   running threshold.
package func isInEvenShare(_ index: Int, share: Double) -> Bool {
  func count(_ items: Int) -> Double { (Double(items) * share + 0.5).rounded(.down) }
  return count(index + 1) > count(index)
}
