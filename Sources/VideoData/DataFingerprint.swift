// What a network learned from, as checkpoints note it: videos and options, and the latent codec.
//
// The codec counts by itself: fitted again to the same videos on another CPU, its components may be
// turned, and latents of the one mean nothing to a network of the other.

/// Names the inputs of a prepared set and its codec.
package struct DataFingerprint: Hashable, Sendable {
  /// `PreparedSet.fingerprint`.
  package let inputs: String
  /// nil where it was not noted: in checkpoints of version 0.1.0 and earlier.
  package let codec: String?

  package init(inputs: String, codec: String?) {
    self.inputs = inputs
    self.codec = codec
  }

  /// Reads `text`.
  package init(_ text: String) {
    let parts = text.split(separator: "-", maxSplits: 1).map(String.init)
    self.init(inputs: parts.first ?? "", codec: parts.count > 1 ? parts[1] : nil)
  }

  package var text: String { codec.map { "\(inputs)-\($0)" } ?? inputs }

  /// - Throws: `otherData` where the set's codec is known to be another.
  func requireCodec(of prepared: PreparedSet) throws {
    guard let codec, codec != prepared.codec.fingerprint else { return }
    throw VideoError(
      .otherData, "the latent codec, fitted anew (perhaps on another CPU), is not the one")
  }
}
