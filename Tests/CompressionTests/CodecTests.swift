import Basics
import Testing

@testable import Compression

struct CodecTests {
  @Test(arguments: Codec.allCases)
  func `a codec passes the battery`(codec: Codec) throws { try checkCodec(codec) }

  @Test func `normal gradients shrink by their exponents alone`() throws {
    // Entropy of the exponent of a normal variable: 2.5-2.6 bits; 32 / (24 + 2.55) = 1.205, the
    // Huffman code and chunk tables cost below 3 % of the exponent plane.
    let words = WordKind.gradients.words(300_000, format: .float32, sample: 1)
    let ratio = Double(words.count) / Double(encoded(words, .planes).count)
    #expect(ratio > 1.18 && ratio < 1.22, "fp32 ratio \(ratio)")
    let half = WordKind.gradients.words(300_000, format: .bfloat16, sample: 1)
    let halfRatio = Double(half.count) / Double(encoded(half, .planes, .bfloat16).count)
    #expect(halfRatio > 1.45 && halfRatio < 1.52, "bf16 ratio \(halfRatio)")
  }

  @Test func `a delta to a near base shrinks below what planes reach`() throws {
    let words = WordKind.gradients.words(200_000, format: .float32, sample: 2)
    let delta = encoded(words, .deltaPlanes, base: nearby(words, format: .float32))
    #expect(delta.count * 3 < encoded(words, .planes).count)
  }

  @Test func `noise is sent as it is`() throws {
    let words = WordKind.noise.words(100_000, format: .float32, sample: 3)
    let message = encoded(words, .planes)
    #expect(try MessageHeader(parsing: message).codec == .off)
    #expect(message.count == words.count + MessageHeader.byteCount)
  }

  @Test func `a reused encoder writes the bytes of a fresh one`() {
    let encoder = MessageEncoder()
    let words = WordKind.gradients.words(70_000, format: .float32, sample: 4)
    _ = encoded(
      WordKind.sparse.words(90_000, format: .bfloat16, sample: 4), .planes, .bfloat16, with: encoder
    )
    #expect(encoded(words, .planes, with: encoder) == encoded(words, .planes))
  }
}

struct MessageDecoderTests {
  private let words = WordKind.gradients.words(5_000, format: .float32, sample: 8)

  private func code(of body: () throws -> Void) -> CompressionError.Code? {
    do { try body() } catch { return (error as? CompressionError)?.code }
    return nil
  }

  @Test func `another base than the sender's is refused`() {
    let base = nearby(words, format: .float32)
    var other = base
    other[777] ^= 1
    let message = encoded(words, .deltaPlanes, base: base)
    #expect(code { _ = try decoded(message, count: words.count, base: other) } == .baseMismatch)
    #expect(code { _ = try decoded(message, count: words.count) } == .baseMismatch)
  }

  @Test func `a message decodes over its base in place`() throws {
    var held = nearby(words, format: .float32)
    let message = encoded(words, .deltaPlanes, base: held)
    #expect(try MessageHeader(parsing: message).codec == .deltaPlanes)
    do {
      var span = held.mutableSpan
      var bytes = unsafe span.mutableBytes
      try MessageDecoder().decodeOverBase(message, words: &bytes)
    }
    #expect(held == words)
  }

  @Test func `another format or length than expected is refused`() {
    let message = encoded(words, .planes)
    #expect(code { _ = try decoded(message, count: words.count - 4) } == .unexpectedFormat)
    #expect(code { _ = try decoded(message, count: words.count, .bfloat16) } == .unexpectedFormat)
  }

  @Test func `a header of another release is refused`() {
    var message = encoded(words, .off)
    message[5] = 9
    let checksum = CRC32C.checksum(of: Array(message[..<40]))
    for byte in 0..<4 { message[40 + byte] = UInt8(truncatingIfNeeded: checksum >> (8 * byte)) }
    #expect(code { _ = try decoded(message, count: words.count) } == .badHeader)
  }
}
