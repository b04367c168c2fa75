// What the ranks that share a clip's tokens exchange for a Multimodal Diffusion Block.
//
// Tokens of every frame are cut, so a rank has its tokens in all frames. The temporal branch then needs no
// exchange at all, and the cross branch the keys and values of the text of first frames alone.
// Source: Vchitect-2.0 specification §6.3 (`all`, as the LiteGen library does) and §6.4 (`spatial`).

/// Which attentions are computed on own heads of all tokens; results agree up to the order of sums.
package enum SequencePlan: String, CaseIterable, Codable, Sendable {
  /// The spatial branch: every token goes three times there and once back, and some text to all.
  case spatial
  /// All branches: in form v2 an image token goes seven times there and three times back, in v1 three times
  /// and twice; a text token three times each, and twice back in v1.
  case all
}
