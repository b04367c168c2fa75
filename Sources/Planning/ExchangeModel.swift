// Words that data-parallel ranks send in a training step, before coding.
//
// An update of n elements over R ranks: rank r owns n_r of them; it sends n − n_r gradients to their
// owners (reduce-scatter) and its n_r updated parameters to R − 1 peers (all-gather). Over all ranks:
// (R − 1) n elements each way. Source: ZeRO (1910.02054) §7; the norm's 8 bytes for each 4,096
// elements are left out.

package enum ExchangeModel {
  /// Bytes that all ranks send for one update.
  package static func byteCount(elementCount: Int, rankCount: Int) -> Int {
    2 * (rankCount - 1) * elementCount * 4
  }

  /// Bytes that all ranks send in a step of distribution matching, as a mean over steps: the adapter
  /// and the head in every step, the generator in one of `criticRatio`.
  package static func distillByteCount(_ sizes: WorkloadSizes, rankCount: Int) -> Int {
    func update(_ count: Int) -> Int { byteCount(elementCount: count, rankCount: rankCount) }
    switch sizes.method {
    case .none: return 0
    case .consistency: return update(sizes.networkElementCount)
    case .distributionMatching:
      return update(sizes.adapterElementCount + sizes.headElementCount)
        + update(sizes.networkElementCount) / sizes.criticRatio
    }
  }
}
