// What precedes the chunks of a message, little endian, 44 bytes:
//
//    0  magic "W2SX"            4  version (1)         5  codec     6  word byte count   7  zero
//    8  word count (u64)       16  raw bytes (u64)    24  coded bytes after the header (u64)
//   32  CRC-32C of the raw bytes                      36  CRC-32C of the base, or 0
//   40  CRC-32C of bytes 0 ..< 40
//
// Then, for `off`, the raw bytes; otherwise chunks of up to 65,536 words: one u32 per plane (byte
// count, top bit set when coded), then the planes, lowest byte first.

/// The header of an encoded message. The codec is the one used, which is `off` when coding does not
/// shrink the words, whatever the sender asked for.
package struct MessageHeader: Equatable, Sendable {
  package static let byteCount = 44
  private static let magic: UInt32 = 0x5853_3257
  private static let version: UInt8 = 1

  package let codec: Codec
  package let format: WordFormat
  package let wordCount: Int
  /// Bytes that follow the header.
  package let codedByteCount: Int
  package let rawChecksum: UInt32
  package let baseChecksum: UInt32

  package var rawByteCount: Int { wordCount * format.byteCount }
  package var messageByteCount: Int { Self.byteCount + codedByteCount }

  init(
    codec: Codec, format: WordFormat, wordCount: Int, codedByteCount: Int, rawChecksum: UInt32,
    baseChecksum: UInt32
  ) {
    self.codec = codec
    self.format = format
    self.wordCount = wordCount
    self.codedByteCount = codedByteCount
    self.rawChecksum = rawChecksum
    self.baseChecksum = baseChecksum
  }

  /// Reads the header at the start of `message`, which may go on after it.
  ///
  /// - Throws: `truncated`, `badHeader`.
  package init(parsing message: RawSpan) throws(CompressionError) {
    guard message.byteCount >= Self.byteCount else {
      throw CompressionError(
        .truncated, "\(message.byteCount) bytes, a header has \(Self.byteCount); receive it again")
    }
    func word(_ offset: Int) -> UInt32 {
      unsafe UInt32(
        littleEndian: message.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
    func byte(_ offset: Int) -> UInt8 {
      unsafe message.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt8.self)
    }
    func count(_ offset: Int) -> Int? {
      Int(exactly: UInt64(word(offset + 4)) << 32 | UInt64(word(offset)))
    }
    guard word(0) == Self.magic else {
      throw CompressionError(.badHeader, "no header here; sender and receiver are out of step")
    }
    guard word(40) == CRC32C.checksum(of: message.extracting(first: 40)) else {
      throw CompressionError(.badHeader, "the header's checksum does not hold; receive it again")
    }
    guard byte(4) == Self.version, byte(7) == 0, let codec = Codec(rawValue: byte(5)),
      let format = WordFormat(rawValue: byte(6))
    else {
      throw CompressionError(
        .badHeader,
        "version \(byte(4)), codec \(byte(5)), word of \(byte(6)) bytes: written by another release"
      )
    }
    guard let wordCount = count(8), let rawByteCount = count(16), let codedByteCount = count(24),
      wordCount <= Int.max / 8, rawByteCount == wordCount * format.byteCount,
      codedByteCount <= Int.max / 2
    else { throw CompressionError(.badHeader, "the header's byte counts contradict each other") }
    self.init(
      codec: codec, format: format, wordCount: wordCount, codedByteCount: codedByteCount,
      rawChecksum: word(32), baseChecksum: word(36))
  }

  /// Reads the header of a message that is an array.
  package init(parsing message: [UInt8]) throws(CompressionError) {
    unsafe try self.init(parsing: message.span.bytes)
  }

  /// The 44 bytes of the header.
  var bytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.byteCount)
    func append(_ value: some FixedWidthInteger) {
      for shift in stride(from: 0, to: value.bitWidth, by: 8) {
        bytes.append(UInt8(truncatingIfNeeded: value >> shift))
      }
    }
    append(Self.magic)
    bytes += [Self.version, codec.rawValue, format.rawValue, 0]
    append(UInt64(wordCount))
    append(UInt64(rawByteCount))
    append(UInt64(codedByteCount))
    append(rawChecksum)
    append(baseChecksum)
    append(CRC32C.checksum(of: bytes))
    return bytes
  }
}
