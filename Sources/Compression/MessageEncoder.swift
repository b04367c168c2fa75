// Words to message: split into planes, code the planes that shrink, fall back to the raw bytes.
//
// Goals: 1 exact, 2 fast (one pass over 256 KiB chunks, no allocation), 3 small. A plane is tried
// only if a sample of its bytes says that it is not noise, so that mantissas cost next to nothing.

import Basics
import CKernels

/// Encodes messages with reused memory. Not for two threads at once.
@safe
package final class MessageEncoder {
  private let compressor = ZstdCompressor()
  private let planes: UnsafeMutableRawBufferPointer

  package init() {
    unsafe planes = .allocate(
      byteCount: ChunkFormat.wordCount * WordFormat.float32.byteCount, alignment: 64)
  }

  deinit { unsafe planes.deallocate() }

  /// The most bytes that a message of `wordCount` words can have.
  package static func byteCountBound(wordCount: Int, format: WordFormat = .float32) -> Int {
    let chunkCount = (wordCount + ChunkFormat.wordCount - 1) / ChunkFormat.wordCount
    return MessageHeader.byteCount + chunkCount * format.byteCount * 4
      + wordCount * format.byteCount
  }

  /// Encodes `words` at the start of `message`; returns the bytes used. The message says `off` when
  /// the coded form is not below 0.97 of the raw one.
  ///
  /// - Precondition: `message` has the bytes of `byteCountBound`; `base` has as many bytes as
  ///   `words` if and only if the codec is `deltaPlanes`.
  package func encode(
    _ words: RawSpan, format: WordFormat = .float32, codec: Codec, base: RawSpan? = nil,
    into message: inout MutableRawSpan
  ) -> Int {
    let rawByteCount = words.byteCount
    require(
      rawByteCount % format.byteCount == 0,
      "\(rawByteCount) bytes are no whole number of words of \(format.byteCount) bytes")
    let wordCount = rawByteCount / format.byteCount
    let bound = Self.byteCountBound(wordCount: wordCount, format: format)
    require(
      message.byteCount >= bound, "\(message.byteCount) bytes for a message of up to \(bound)")
    require(
      (codec == .deltaPlanes ? rawByteCount : nil) == base?.byteCount,
      "codec \(codec) for \(rawByteCount) bytes, base of \(base?.byteCount ?? 0) bytes")
    var baseChecksum: UInt32 = 0
    if codec == .deltaPlanes, let base { baseChecksum = CRC32C.checksum(of: base) }
    let rawChecksum = CRC32C.checksum(of: words)

    return unsafe message.withUnsafeMutableBytes { target in
      let body = unsafe UnsafeMutableRawBufferPointer(rebasing: target[MessageHeader.byteCount...])
      var usedCodec = codec
      var codedByteCount = rawByteCount
      if codec != .off {
        codedByteCount = unsafe words.withUnsafeBytes { words in
          guard let base else { return unsafe encodeChunks(words, nil, format, into: body) }
          return unsafe base.withUnsafeBytes { unsafe encodeChunks(words, $0, format, into: body) }
        }
        if codedByteCount >= ChunkFormat.worthwhileByteCount(ofRaw: rawByteCount) {
          usedCodec = .off
        }
      }
      if usedCodec == .off {
        codedByteCount = rawByteCount
        unsafe words.withUnsafeBytes { unsafe body.copyMemory(from: $0) }
      }
      let header = MessageHeader(
        codec: usedCodec, format: format, wordCount: wordCount, codedByteCount: codedByteCount,
        rawChecksum: rawChecksum, baseChecksum: usedCodec == .deltaPlanes ? baseChecksum : 0)
      unsafe target.copyBytes(from: header.bytes)
      return header.messageByteCount
    }
  }

  /// The message of `words` as an array of its own.
  package func encode(
    _ words: RawSpan, format: WordFormat = .float32, codec: Codec, base: RawSpan? = nil
  ) -> [UInt8] {
    let bound = Self.byteCountBound(wordCount: words.byteCount / format.byteCount, format: format)
    return unsafe [UInt8](unsafeUninitializedCapacity: bound) { room, count in
      var bytes = unsafe UnsafeMutableRawBufferPointer(room).mutableBytes
      count = encode(words, format: format, codec: codec, base: base, into: &bytes)
    }
  }

  private func encodeChunks(
    _ words: UnsafeRawBufferPointer, _ base: UnsafeRawBufferPointer?, _ format: WordFormat,
    into target: UnsafeMutableRawBufferPointer
  ) -> Int {
    guard let wordBytes = words.baseAddress, let scratch = unsafe planes.baseAddress else {
      return 0
    }
    let width = format.byteCount
    var used = 0
    for start in stride(from: 0, to: words.count / width, by: ChunkFormat.wordCount) {
      let count = min(ChunkFormat.wordCount, words.count / width - start)
      let baseChunk = unsafe base?.baseAddress.map { unsafe $0 + start * width }
      switch format {
      case .float32:
        unsafe w2svd_split_planes_32(wordBytes + start * width, baseChunk, count, scratch)
      case .bfloat16:
        unsafe w2svd_split_planes_16(wordBytes + start * width, baseChunk, count, scratch)
      }
      let lengths = used
      used += 4 * width
      for plane in 0..<width {
        let bytes = unsafe UnsafeRawBufferPointer(start: scratch + plane * count, count: count)
        let room = unsafe UnsafeMutableRawBufferPointer(rebasing: target[used..<used + count])
        var length = UInt32(count)
        if let coded = unsafe code(bytes, into: room) {
          length = UInt32(coded) | ChunkFormat.codedFlag
          used += coded
        } else {
          unsafe room.copyMemory(from: bytes)
          used += count
        }
        unsafe target.storeBytes(
          of: length.littleEndian, toByteOffset: lengths + 4 * plane, as: UInt32.self)
      }
    }
    return used
  }

  /// The coded byte count if coding is worthwhile.
  private func code(
    _ plane: UnsafeRawBufferPointer, into room: UnsafeMutableRawBufferPointer
  ) -> Int? {
    let rate = unsafe w2svd_collision_rate(plane.baseAddress, plane.count)
    guard rate >= ChunkFormat.leastCollisionRate else { return nil }
    let limit = ChunkFormat.worthwhileByteCount(ofRaw: plane.count)
    return unsafe compressor.compress(
      plane, into: UnsafeMutableRawBufferPointer(rebasing: room[..<limit]))
  }
}
