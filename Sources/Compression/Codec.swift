// The lossless codecs and the word formats they understand.

/// How the words of a message are coded. All are lossless, NaN payloads included.
///
/// Raw values are on the wire: a number once given keeps its meaning.
package enum Codec: UInt8, CaseIterable, Codable, Sendable {
  /// The bytes as they are, checksummed.
  case off = 0
  /// Byte planes of the words; planes that shrink are Huffman coded.
  case planes = 1
  /// Byte planes of the zigzagged integer difference to a base that the receiver holds.
  case deltaPlanes = 2
}

/// The words of a message; the raw value is their byte count.
package enum WordFormat: UInt8, CaseIterable, Codable, Sendable {
  /// Float32 bit patterns.
  case float32 = 4
  /// bfloat16 bit patterns.
  case bfloat16 = 2

  package var byteCount: Int { Int(rawValue) }
}

/// Constants of the coded form that encoder and decoder share.
enum ChunkFormat {
  /// Words per chunk: planes of 64 KiB, so that a chunk stays in the L2 cache and has its own code.
  static let wordCount = 65_536
  /// Set in a plane's length when the plane is coded, clear when it is stored.
  static let codedFlag: UInt32 = 0x8000_0000
  /// A coded form is kept only if it is below this share of the raw one.
  static let worthwhileShare = 0.97
  /// 2^(-8 · 0.97): a plane whose bytes agree less often has more than 7.76 bits of entropy.
  static let leastCollisionRate = 0.004_613

  static func worthwhileByteCount(ofRaw byteCount: Int) -> Int {
    Int(Double(byteCount) * worthwhileShare)
  }
}
