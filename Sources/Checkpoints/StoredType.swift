// The element types of stored tensors, named as in a safetensors header, and the explicit
// conversions between them and Float32. Bytes are little endian, as on every machine we run on.

import Basics
import DenseKernels

/// How the elements of a stored tensor are coded.
package enum StoredType: String, Codable, Sendable, CaseIterable {
  case bool = "BOOL"
  case uint8 = "U8"
  case int8 = "I8"
  case float8E4M3 = "F8_E4M3"
  case float8E5M2 = "F8_E5M2"
  case int16 = "I16"
  case uint16 = "U16"
  case float16 = "F16"
  case bfloat16 = "BF16"
  case int32 = "I32"
  case uint32 = "U32"
  case float32 = "F32"
  case int64 = "I64"
  case uint64 = "U64"
  case float64 = "F64"

  package var byteCount: Int {
    switch self {
    case .bool, .uint8, .int8, .float8E4M3, .float8E5M2: 1
    case .int16, .uint16, .float16, .bfloat16: 2
    case .int32, .uint32, .float32: 4
    case .int64, .uint64, .float64: 8
    }
  }

  /// Whether it can be read as, and written from, Float32.
  package var isConvertible: Bool {
    switch self {
    case .float16, .bfloat16, .float32, .float64: true
    default: false
    }
  }
}

/// A Swift type whose memory is a stored element.
package protocol StorableElement: BitwiseCopyable, Sendable {
  static var storedType: StoredType { get }
}

extension Float: StorableElement { package static var storedType: StoredType { .float32 } }
extension Double: StorableElement { package static var storedType: StoredType { .float64 } }
extension Float16: StorableElement { package static var storedType: StoredType { .float16 } }
extension Int8: StorableElement { package static var storedType: StoredType { .int8 } }
extension Int16: StorableElement { package static var storedType: StoredType { .int16 } }
extension Int32: StorableElement { package static var storedType: StoredType { .int32 } }
extension Int64: StorableElement { package static var storedType: StoredType { .int64 } }
extension UInt8: StorableElement { package static var storedType: StoredType { .uint8 } }
extension UInt16: StorableElement { package static var storedType: StoredType { .uint16 } }
extension UInt32: StorableElement { package static var storedType: StoredType { .uint32 } }
extension UInt64: StorableElement { package static var storedType: StoredType { .uint64 } }

/// The upper half of a Float32: bfloat16 as bits.
enum BFloat16 {
  static func value(ofBits bits: UInt16) -> Float { Float(bitPattern: UInt32(bits) << 16) }

  /// Rounds to nearest, ties to even; NaN stays a (quiet) NaN, overflow becomes infinity.
  static func bits(of value: Float) -> UInt16 {
    let pattern = value.bitPattern
    if value.isNaN { return UInt16(truncatingIfNeeded: pattern >> 16) | 0x0040 }
    let rounding = 0x7FFF &+ ((pattern >> 16) & 1)
    return UInt16(truncatingIfNeeded: (pattern &+ rounding) >> 16)
  }
}

/// Elements that pass through a converter at once; 256 KiB of Float32.
let conversionChunk = 1 << 16

extension PositionedFile {
  /// Reads `target.count` elements of `type` from byte `offset`, converted to Float32.
  /// - Precondition: `type.isConvertible`.
  /// - Cost: one chunk of memory beside the target, none for F32.
  func readFloats(_ type: StoredType, at offset: Int, into target: Buffer<Float>) throws {
    switch type {
    case .float32: try readElements(at: offset, into: target)
    case .float16: try readConverted(at: offset, into: target) { (x: Float16) in Float(x) }
    case .bfloat16: try readConverted(at: offset, into: target, BFloat16.value(ofBits:))
    case .float64: try readConverted(at: offset, into: target) { (x: Double) in Float(x) }
    default: trap("\(type.rawValue) cannot be read as Float32")
    }
  }

  /// Reads `target.count` elements as they are stored.
  func readElements<Element>(at offset: Int, into target: Buffer<Element>) throws {
    try target.withMutableBytes { bytes in try read(into: &bytes, at: offset) }
  }

  private func readConverted<Element: BitwiseCopyable>(
    at offset: Int, into target: Buffer<Float>, _ convert: (Element) -> Float
  ) throws {
    let chunk = Buffer<Element>(zeroed: min(conversionChunk, target.count))
    var start = 0
    while start < target.count {
      let part = chunk[0..<min(chunk.count, target.count - start)]
      try readElements(at: offset + start * MemoryLayout<Element>.size, into: part)
      for index in 0..<part.count { target[start + index] = convert(part[index]) }
      start += part.count
    }
  }
}

extension Buffer where Element == Float {
  /// Hands out the elements coded as `type`, chunk by chunk in order.
  /// - Precondition: `type.isConvertible`.
  func forEachCodedChunk(as type: StoredType, _ body: (RawSpan) throws -> Void) throws {
    switch type {
    case .float32: try withBytes { bytes in try body(bytes) }
    case .float16: try forEachConvertedChunk({ Float16($0) }, body)
    case .bfloat16: try forEachConvertedChunk(BFloat16.bits(of:), body)
    case .float64: try forEachConvertedChunk({ Double($0) }, body)
    default: trap("Float32 cannot be written as \(type.rawValue)")
    }
  }

  private func forEachConvertedChunk<Coded: BitwiseCopyable>(
    _ convert: (Float) -> Coded, _ body: (RawSpan) throws -> Void
  ) throws {
    var start = 0
    let chunk = Buffer<Coded>(zeroed: Swift.min(conversionChunk, count))
    while start < count {
      let part = chunk[0..<Swift.min(chunk.count, count - start)]
      for index in 0..<part.count { part[index] = convert(self[start + index]) }
      try part.withBytes { bytes in try body(bytes) }
      start += part.count
    }
  }
}
