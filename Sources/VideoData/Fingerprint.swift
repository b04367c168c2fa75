// A 64-bit FNV-1a hash of content: tells whether an input or a stored piece is still the same.
// It guards against accidents, not against malice.

struct Fingerprint: Hashable, Codable, Sendable {
  private(set) var value: UInt64 = 0xCBF2_9CE4_8422_2325

  init() {}

  init(of bytes: [UInt8]) { add(bytes) }

  mutating func add(_ bytes: [UInt8]) {
    var hash = value
    for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    value = hash
  }

  /// Adds text and its end, so that "ab", "c" and "a", "bc" differ.
  mutating func add(_ text: String) {
    add(Array(text.utf8))
    add([0xFF])
  }

  var text: String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}
