// Message to words. Nothing is read outside the message, nothing written outside the target, and a
// decode that returns has produced exactly the encoded bytes: the checksum is of the words, not of
// their coded form, and is taken after decoding.

import CKernels

/// Decodes messages with reused memory. Not for two threads at once.
@safe
package final class MessageDecoder {
  private let decompressor = ZstdDecompressor()
  private let planes: UnsafeMutableRawBufferPointer

  package init() {
    unsafe planes = .allocate(
      byteCount: ChunkFormat.wordCount * WordFormat.float32.byteCount, alignment: 64)
  }

  deinit { unsafe planes.deallocate() }

  /// Decodes a whole message into `words`, whose contents are undefined after a throw; returns its
  /// header.
  ///
  /// - Parameter base: what a `deltaPlanes` message is a difference to; other messages ignore it.
  /// - Throws: `CompressionError` on any damage, and when the message has another format or length
  ///   than expected or another base than given.
  @discardableResult
  package func decode(
    _ message: RawSpan, format: WordFormat = .float32, base: RawSpan? = nil,
    into words: inout MutableRawSpan
  ) throws(CompressionError) -> MessageHeader {
    let header = try checkedHeader(of: message, format: format, wordByteCount: words.byteCount)
    if header.codec == .deltaPlanes {
      guard let base else {
        throw CompressionError(
          .baseMismatch, "a difference, and no base is held; ask for all words")
      }
      try decodeDelta(message, header, base: base, into: &words)
    } else {
      unsafe try words.withUnsafeMutableBytes { (target) throws(CompressionError) in
        unsafe try decodeBody(message, header, base: nil, into: target)
      }
    }
    try check(words, header)
    return header
  }

  /// Decodes a whole message over its base: `words` holds the base and gets the decoded words.
  ///
  /// - Throws: as `decode`.
  @discardableResult
  package func decodeOverBase(
    _ message: RawSpan, format: WordFormat = .float32, words: inout MutableRawSpan
  ) throws(CompressionError) -> MessageHeader {
    let header = try checkedHeader(of: message, format: format, wordByteCount: words.byteCount)
    let isDelta = header.codec == .deltaPlanes
    if isDelta { try checkBase(words.bytes, header) }
    unsafe try words.withUnsafeMutableBytes { (target) throws(CompressionError) in
      let base = isDelta ? UnsafeRawBufferPointer(target) : nil
      unsafe try decodeBody(message, header, base: base, into: target)
    }
    try check(words, header)
    return header
  }

  /// Decodes a message that is an array.
  @discardableResult
  package func decode(
    _ message: [UInt8], format: WordFormat = .float32, base: RawSpan? = nil,
    into words: inout MutableRawSpan
  ) throws(CompressionError) -> MessageHeader {
    unsafe try decode(message.span.bytes, format: format, base: base, into: &words)
  }

  /// Decodes a message that is an array over its base.
  @discardableResult
  package func decodeOverBase(
    _ message: [UInt8], format: WordFormat = .float32, words: inout MutableRawSpan
  ) throws(CompressionError) -> MessageHeader {
    unsafe try decodeOverBase(message.span.bytes, format: format, words: &words)
  }

  private func checkedHeader(
    of message: RawSpan, format: WordFormat, wordByteCount: Int
  ) throws(CompressionError) -> MessageHeader {
    let header = try MessageHeader(parsing: message)
    guard header.format == format, header.rawByteCount == wordByteCount else {
      throw CompressionError(
        .unexpectedFormat,
        "\(header.rawByteCount) bytes of \(header.format) where \(wordByteCount) of \(format) "
          + "belong; sender and receiver disagree about the bucket")
    }
    guard header.messageByteCount == message.byteCount else {
      throw CompressionError(
        .truncated, "\(message.byteCount) bytes of a message of \(header.messageByteCount)")
    }
    return header
  }

  private func checkBase(_ base: RawSpan, _ header: MessageHeader) throws(CompressionError) {
    guard base.byteCount == header.rawByteCount, CRC32C.checksum(of: base) == header.baseChecksum
    else {
      throw CompressionError(
        .baseMismatch, "a difference to other words than the base held; ask for all words")
    }
  }

  private func check(
    _ words: borrowing MutableRawSpan, _ header: MessageHeader
  ) throws(CompressionError) {
    guard CRC32C.checksum(of: words.bytes) == header.rawChecksum else {
      throw CompressionError(.checksumMismatch, "the words were damaged on the way")
    }
  }

  private func decodeDelta(
    _ message: RawSpan, _ header: MessageHeader, base: RawSpan, into words: inout MutableRawSpan
  ) throws(CompressionError) {
    try checkBase(base, header)
    unsafe try words.withUnsafeMutableBytes { (target) throws(CompressionError) in
      unsafe try base.withUnsafeBytes { (base) throws(CompressionError) in
        unsafe try decodeBody(message, header, base: base, into: target)
      }
    }
  }

  private func decodeBody(
    _ message: RawSpan, _ header: MessageHeader, base: UnsafeRawBufferPointer?,
    into target: UnsafeMutableRawBufferPointer
  ) throws(CompressionError) {
    unsafe try message.withUnsafeBytes { (bytes) throws(CompressionError) in
      let body = unsafe UnsafeRawBufferPointer(rebasing: bytes[MessageHeader.byteCount...])
      guard header.codec != .off else {
        guard body.count == target.count else {
          throw CompressionError(.truncated, "stored words of another length than announced")
        }
        return unsafe target.copyMemory(from: body)
      }
      unsafe try decodeChunks(body, header.format, base, into: target)
    }
  }

  private func decodeChunks(
    _ body: UnsafeRawBufferPointer, _ format: WordFormat, _ base: UnsafeRawBufferPointer?,
    into target: UnsafeMutableRawBufferPointer
  ) throws(CompressionError) {
    let width = format.byteCount
    var next = 0
    for start in stride(from: 0, to: target.count / width, by: ChunkFormat.wordCount) {
      let count = min(ChunkFormat.wordCount, target.count / width - start)
      let lengths = next
      next += 4 * width
      guard next <= body.count else {
        throw CompressionError(.truncated, "the message ends in a chunk's header")
      }
      var parts: [UnsafePointer<UInt8>] = unsafe []
      for plane in 0..<width {
        let field = unsafe UInt32(
          littleEndian: body.loadUnaligned(fromByteOffset: lengths + 4 * plane, as: UInt32.self))
        let length = Int(field & ~ChunkFormat.codedFlag)
        guard length <= body.count - next else {
          throw CompressionError(.truncated, "the message ends in a plane of \(length) bytes")
        }
        let bytes = unsafe UnsafeRawBufferPointer(rebasing: body[next..<next + length])
        next += length
        unsafe try parts.append(
          decodedPlane(bytes, isCoded: field & ChunkFormat.codedFlag != 0, plane, count))
      }
      guard let words = unsafe target.baseAddress.map({ unsafe $0 + start * width }) else { return }
      let baseChunk = unsafe base?.baseAddress.map { unsafe $0 + start * width }
      switch format {
      case .float32:
        unsafe w2svd_join_planes_32(
          parts[0], parts[1], parts[2], parts[3], baseChunk, count, words)
      case .bfloat16:
        unsafe w2svd_join_planes_16(parts[0], parts[1], baseChunk, count, words)
      }
    }
    guard next == body.count else {
      throw CompressionError(.truncated, "\(body.count - next) bytes after the last chunk")
    }
  }

  /// Where `count` bytes of the plane lie: in the message if stored, else decoded in our memory.
  private func decodedPlane(
    _ bytes: UnsafeRawBufferPointer, isCoded: Bool, _ plane: Int, _ count: Int
  ) throws(CompressionError) -> UnsafePointer<UInt8> {
    var source = unsafe bytes
    if isCoded {
      let room = unsafe UnsafeMutableRawBufferPointer(
        rebasing: planes[plane * ChunkFormat.wordCount..<plane * ChunkFormat.wordCount + count])
      unsafe try decompressor.decompress(bytes, into: room)
      unsafe source = UnsafeRawBufferPointer(room)
    }
    guard source.count == count, let start = source.baseAddress else {
      throw CompressionError(
        .badPlane, "a plane of \(source.count) bytes where \(count) belong")
    }
    return unsafe start.assumingMemoryBound(to: UInt8.self)
  }
}
