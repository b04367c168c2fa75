// What the blocks of a network are, as far as costs depend on it.

package enum NetworkForm: Codable, Hashable, Sendable {
  /// HunyuanVideo: blocks of two streams, then of one, over all tokens of a sample.
  case doubleAndSingleStream
  /// Vchitect-2.0: blocks of two streams over the tokens of each frame.
  case multimodal(MultimodalForm)
}

/// The form of Multimodal Diffusion Blocks.
package struct MultimodalForm: Codable, Hashable, Sendable {
  /// Projections for each branch, and a cross branch (v2); else one set for two (v1).
  package var hasOwnProjections: Bool
  /// Whether the spatial branch counts as it is, κ = 1: then its gradient is handed on.
  package var hasUnitGain: Bool
  /// Where tokens are shared, whether all branches are computed on own heads of all tokens.
  package var exchangesAllBranches: Bool

  package init(hasOwnProjections: Bool, hasUnitGain: Bool, exchangesAllBranches: Bool) {
    self.hasOwnProjections = hasOwnProjections
    self.hasUnitGain = hasUnitGain
    self.exchangesAllBranches = exchangesAllBranches
  }
}
