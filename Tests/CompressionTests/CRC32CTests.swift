import Basics
import Testing

@testable import Compression

struct CRC32CTests {
  @Test func `the published check values hold`() {
    // RFC 3720, B.4, and the check value of the CRC catalogue.
    #expect(CRC32C.checksum(of: Array("123456789".utf8)) == 0xE306_9283)
    #expect(CRC32C.checksum(of: [UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
    #expect(CRC32C.checksum(of: [UInt8](repeating: 0xFF, count: 32)) == 0x62A8_AB43)
    #expect(CRC32C.checksum(of: (0..<32).map { UInt8($0) }) == 0x46DD_794E)
    #expect(CRC32C.checksum(of: [UInt8]()) == 0)
  }

  @Test func `the fast loop agrees with the table for every length and alignment`() {
    let stream = RandomStream(seed: 3, purpose: .tests)
    let bytes = (0..<20_000).map { UInt8(truncatingIfNeeded: stream.word(at: $0)) }
    for count in Array(0..<70) + [6_143, 6_144, 6_145, 12_288, 18_500, 19_990] {
      for start in 0..<9 {
        let part = Array(bytes[start..<start + count])
        let expected = unsafe CRC32C.checksumByTable(of: part.span.bytes)
        #expect(CRC32C.checksum(of: part) == expected, "\(count) bytes from \(start)")
      }
    }
  }

  @Test func `a checksum grown in parts is that of the whole`() {
    let bytes = (0..<15_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    for cut in [0, 1, 7, 6_144, 14_999, 15_000] {
      var checksum = CRC32C()
      checksum.update(Array(bytes[..<cut]))
      checksum.update(Array(bytes[cut...]))
      #expect(checksum.value == CRC32C.checksum(of: bytes), "cut at \(cut)")
    }
  }
}
