// Integers and doubles as little-endian bytes, for the small messages of the mesh itself.

extension FixedWidthInteger {
  /// The bytes, lowest first.
  var littleEndianBytes: [UInt8] {
    (0..<Self.bitWidth / 8).map { UInt8(truncatingIfNeeded: self >> ($0 * 8)) }
  }
}

extension [UInt8] {
  init(_ integers: [Int]) { self = integers.flatMap { Int64($0).littleEndianBytes } }

  init(_ doubles: [Double]) { self = doubles.flatMap(\.bitPattern.littleEndianBytes) }

  /// The bytes as 64-bit words; a rest below eight bytes is left out.
  private var words: [UInt64] {
    (0..<count / 8).map { word in
      (0..<8).reduce(0) { $0 | UInt64(self[word * 8 + $1]) << ($1 * 8) }
    }
  }

  var integers: [Int] { words.map { Int(Int64(bitPattern: $0)) } }

  var doubles: [Double] { words.map(Double.init(bitPattern:)) }
}
