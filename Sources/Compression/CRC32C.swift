// CRC-32C (Castagnoli): the checksum of messages, checkpoint slices and event files.
//
// About 25 GB/s per core where the CPU has the instruction, so that it is free next to a codec, a
// link or a disk. Source: RFC 3720, appendix B.4.

import CKernels

/// A checksum that grows with the bytes it is given.
package struct CRC32C: Equatable, Sendable {
  /// The checksum of all bytes so far; 0 before the first.
  package private(set) var value: UInt32 = 0

  package init() {}

  /// Appends `bytes`.
  package mutating func update(_ bytes: RawSpan) {
    let start = value
    value = unsafe bytes.withUnsafeBytes { unsafe w2svd_crc32c(start, $0.baseAddress, $0.count) }
  }

  /// Appends `bytes`.
  package mutating func update(_ bytes: [UInt8]) { unsafe update(bytes.span.bytes) }

  /// The checksum of `bytes` alone.
  package static func checksum(of bytes: RawSpan) -> UInt32 {
    var checksum = CRC32C()
    checksum.update(bytes)
    return checksum.value
  }

  /// The checksum of `bytes` alone.
  package static func checksum(of bytes: [UInt8]) -> UInt32 {
    unsafe checksum(of: bytes.span.bytes)
  }

  /// The same, one byte at a time by table: the slow twin for tests.
  package static func checksumByTable(of bytes: RawSpan) -> UInt32 {
    unsafe bytes.withUnsafeBytes { unsafe w2svd_crc32c_by_table(0, $0.baseAddress, $0.count) }
  }
}
