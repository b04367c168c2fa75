// The battery that every codec passes: words of every awkward kind and length, in both formats,
// come back bit for bit, and damaged messages are refused.

import Basics
import Testing

@testable import Compression

/// Words as bytes, so that one battery serves both formats.
typealias Words = [UInt8]

/// Seeded words of one kind.
enum WordKind: CaseIterable {
  case zeros, noise, gradients, special, sparse

  func words(_ count: Int, format: WordFormat, sample: Int) -> Words {
    let stream = RandomStream(seed: 7, purpose: .tests, step: 1, sample: sample)
    let special: [UInt32] = [
      0x0000_0000, 0x8000_0000, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0x7F80_0001, 0xFFFF_FFFF,
      0x7FBF_FFFF, 0x0000_0001, 0x807F_FFFF, 0x0080_0000, 0x7F7F_FFFF, 0x3F80_0000,
    ]
    var bytes = Words()
    bytes.reserveCapacity(count * format.byteCount)
    for index in 0..<count {
      let noise = stream.word(at: index)
      let bits: UInt32 =
        switch self {
        case .zeros: 0
        case .noise: noise
        case .gradients: Float(stream.normal(at: index) * 0.003).bitPattern
        case .special: special[stream.integer(below: special.count, at: index)] ^ (noise & 0x7F)
        case .sparse: noise % 10 == 0 ? noise : 0
        }
      for byte in (4 - format.byteCount)..<4 {
        bytes.append(UInt8(truncatingIfNeeded: bits >> (8 * byte)))
      }
    }
    return bytes
  }
}

/// Bases of `words` that differ from them a little, as an average of many steps does.
func nearby(_ words: Words, format: WordFormat) -> Words {
  var base = words
  for word in stride(from: 0, to: base.count, by: format.byteCount) {
    base[word] = base[word] &+ UInt8(truncatingIfNeeded: word / format.byteCount % 5)
  }
  return base
}

func encoded(
  _ words: Words, _ codec: Codec, _ format: WordFormat = .float32, base: Words? = nil,
  with encoder: MessageEncoder = MessageEncoder()
) -> [UInt8] {
  guard let base else {
    return unsafe encoder.encode(words.span.bytes, format: format, codec: codec)
  }
  return unsafe encoder.encode(
    words.span.bytes, format: format, codec: codec, base: base.span.bytes)
}

/// Decodes into memory that starts poisoned.
func decoded(
  _ message: [UInt8], count: Int, _ format: WordFormat = .float32, base: Words? = nil,
  with decoder: MessageDecoder = MessageDecoder()
) throws -> Words {
  var words = Words(repeating: 0xA5, count: count)
  var span = words.mutableSpan
  var bytes = unsafe span.mutableBytes
  if let base {
    unsafe try decoder.decode(message, format: format, base: base.span.bytes, into: &bytes)
  } else {
    try decoder.decode(message, format: format, into: &bytes)
  }
  return words
}

/// Everything a codec has to keep.
func checkCodec(_ codec: Codec) throws {
  let encoder = MessageEncoder()
  let decoder = MessageDecoder()
  for format in WordFormat.allCases {
    for kind in WordKind.allCases {
      for count in [0, 1, 2, 3, 63, 64, 1_000, 65_535, 65_536, 65_537, 140_000] {
        let words = kind.words(count, format: format, sample: count % 97)
        let base = codec == .deltaPlanes ? nearby(words, format: format) : nil
        let message = encoded(words, codec, format, base: base, with: encoder)
        let name = Comment(rawValue: "\(codec), \(format), \(kind), \(count) words")
        #expect(message.count <= words.count + MessageHeader.byteCount, name)
        let header = try MessageHeader(parsing: message)
        #expect(header.wordCount == count && header.format == format, name)
        #expect(header.messageByteCount == message.count, name)
        #expect(header.codec == codec || header.codec == .off, name)
        let result = try decoded(message, count: words.count, format, base: base, with: decoder)
        #expect(result == words, name)
      }
    }
  }
  try checkDamage(codec, encoder, decoder)
}

/// Truncated, extended and bit-flipped messages throw, or decode to the very words all the same
/// (some bits of a zstd frame have no meaning); damaged headers always throw.
private func checkDamage(
  _ codec: Codec, _ encoder: MessageEncoder, _ decoder: MessageDecoder
) throws {
  let words = WordKind.gradients.words(3_000, format: .float32, sample: 5)
  let base = codec == .deltaPlanes ? nearby(words, format: .float32) : nil
  let message = encoded(words, codec, base: base, with: encoder)
  let chance = RandomStream(seed: 11, purpose: .tests, step: 2, sample: Int(codec.rawValue))

  func refuses(_ damaged: [UInt8], _ what: String) {
    #expect(throws: CompressionError.self, "\(codec): \(what)") {
      try decoded(damaged, count: words.count, base: base, with: decoder)
    }
  }
  let lengths = Array(0...MessageHeader.byteCount) + [message.count - 1]
  for length in lengths + Array(stride(from: 50, to: message.count, by: 97)) {
    refuses(Array(message[..<length]), "cut to \(length) bytes")
  }
  refuses(message + [0], "one byte more")
  for bit in 0..<(8 * MessageHeader.byteCount) {
    var damaged = message
    damaged[bit / 8] ^= 1 << (bit % 8)
    refuses(damaged, "bit \(bit) of the header flipped")
  }
  var refused = 0
  let trials = 2_000
  for trial in 0..<trials {
    var damaged = message
    let first =
      MessageHeader.byteCount
      + chance.integer(below: message.count - MessageHeader.byteCount, at: 4 * trial)
    damaged[first] ^= 1 << chance.integer(below: 8, at: 4 * trial + 1)
    if trial % 3 == 0 {  // A burst, or a chunk header that promises too much.
      let start = MessageHeader.byteCount + chance.integer(below: 16, at: 4 * trial + 2)
      damaged[start] = UInt8(truncatingIfNeeded: chance.word(at: 4 * trial + 3))
    }
    do {
      let result = try decoded(damaged, count: words.count, base: base, with: decoder)
      #expect(result == words, "\(codec): damage of trial \(trial) went unnoticed")
    } catch is CompressionError { refused += 1 }
  }
  #expect(refused > trials * 9 / 10, "\(codec): only \(refused) of \(trials) damages refused")
}
