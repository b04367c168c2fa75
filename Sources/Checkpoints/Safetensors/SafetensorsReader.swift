// Reads tensors of one safetensors file, whole or in part, without loading the rest.

import Basics
package import DenseKernels
package import Foundation

/// An open safetensors file whose header passed every rule of the format.
package final class SafetensorsReader: Sendable {
  package let path: String
  package let header: SafetensorsHeader
  private let file: PositionedFile
  private let entries: [String: SafetensorsHeader.Entry]

  /// - Throws: `notFound`, `damaged`, `unsupported`, `inputOutput`.
  package init(opening url: URL) throws {
    let path = url.path(percentEncoded: false)
    (file, header) = try explainingFailures {
      let file = try PositionedFile(path, for: .reading)
      return (file, try Self.readHeader(of: file))
    }
    self.path = path
    self.entries = Dictionary(uniqueKeysWithValues: header.entries.map { ($0.tensor.name, $0) })
  }

  private static func readHeader(of file: PositionedFile) throws -> SafetensorsHeader {
    let fileByteCount = try file.byteCount
    let fieldByteCount = SafetensorsHeader.lengthFieldByteCount
    guard fileByteCount >= fieldByteCount else {
      throw CheckpointError(
        .damaged, "\(file.path) is not a safetensors file: it has only \(fileByteCount) bytes")
    }
    let field = Buffer<UInt8>(zeroed: fieldByteCount)
    try file.readElements(at: 0, into: field)
    let length = (0..<fieldByteCount).reduce(UInt64(0)) { $0 | UInt64(field[$1]) << (8 * $1) }
    guard length <= SafetensorsHeader.largestJSONByteCount else {
      throw CheckpointError(
        .damaged,
        "\(file.path) is not a safetensors file: its header would have \(length) bytes, more than "
          + "\(SafetensorsHeader.largestJSONByteCount)")
    }
    guard Int(length) <= fileByteCount - fieldByteCount else {
      throw CheckpointError(
        .damaged,
        "\(file.path) is cut short: \(fileByteCount) bytes, its header alone wants \(length)")
    }
    let json = Buffer<UInt8>(zeroed: Int(length))
    try file.readElements(at: fieldByteCount, into: json)
    return try SafetensorsHeader(
      parsing: json.array, fileByteCount: fileByteCount, path: file.path)
  }

  /// The tensors in the order of the file.
  package var tensors: [TensorDeclaration] { header.entries.map(\.tensor) }

  /// - Throws: `notFound` when the file has no tensor of that name.
  package func declaration(of name: String) throws -> TensorDeclaration { try entry(name).tensor }

  /// Reads elements of a tensor (all of them by default), converted to Float32.
  /// - Precondition: `target` has as many elements as are asked for.
  /// - Throws: `unsupported` for a type that is not a float of 16, 32 or 64 bits.
  package func read(
    _ name: String, elements: Range<Int>? = nil, into target: Buffer<Float>
  ) throws {
    let entry = try entry(name)
    guard entry.tensor.type.isConvertible else {
      throw CheckpointError(
        .unsupported,
        "\(path): tensor \(name) is \(entry.tensor.type.rawValue), a float type is needed here")
    }
    let offset = byteOffset(of: elements, in: entry, targetCount: target.count)
    try explainingFailures { try file.readFloats(entry.tensor.type, at: offset, into: target) }
  }

  /// Reads elements of a tensor (all of them by default) as they are stored.
  /// - Throws: `unsupported` when the tensor has another element type.
  package func readExactly<Element: StorableElement>(
    _ name: String, elements: Range<Int>? = nil, into target: Buffer<Element>
  ) throws {
    let entry = try entry(name)
    guard entry.tensor.type == Element.storedType else {
      throw CheckpointError(
        .unsupported,
        "\(path): tensor \(name) is \(entry.tensor.type.rawValue), "
          + "\(Element.storedType.rawValue) is needed here")
    }
    let offset = byteOffset(of: elements, in: entry, targetCount: target.count)
    try explainingFailures { try file.readElements(at: offset, into: target) }
  }

  /// A whole tensor converted to Float32.
  package func floats(_ name: String) throws -> [Float] {
    let target = Buffer<Float>(zeroed: try entry(name).tensor.count)
    try read(name, into: target)
    return target.array
  }

  /// The elements of a whole small tensor of floats, integers or booleans, as PyTorch writes masks.
  /// - Throws: `unsupported` for a type that is none of these.
  package func numbers(_ name: String) throws -> [Double] {
    let declaration = try declaration(of: name)
    func exactly<Element: StorableElement & BinaryInteger>(
      _ type: Element.Type
    ) throws -> [Double] {
      let buffer = Buffer<Element>(zeroed: declaration.count)
      try readExactly(name, into: buffer)
      return buffer.array.map { Double($0) }
    }
    switch declaration.type {
    case .int64: return try exactly(Int64.self)
    case .int32: return try exactly(Int32.self)
    case .int16: return try exactly(Int16.self)
    case .int8: return try exactly(Int8.self)
    case .uint8: return try exactly(UInt8.self)
    case .bool: return try bytes(name).map { Double($0) }
    default: return try floats(name).map { Double($0) }
    }
  }

  /// The bytes of a whole tensor, whatever its type.
  package func bytes(_ name: String) throws -> [UInt8] {
    let entry = try entry(name)
    let target = Buffer<UInt8>(zeroed: entry.bytes.count)
    try explainingFailures { try file.readElements(at: entry.bytes.lowerBound, into: target) }
    return target.array
  }

  private func entry(_ name: String) throws -> SafetensorsHeader.Entry {
    guard let entry = entries[name] else {
      throw CheckpointError(.notFound, "\(path) has no tensor \(name)")
    }
    return entry
  }

  private func byteOffset(
    of elements: Range<Int>?, in entry: SafetensorsHeader.Entry, targetCount: Int
  ) -> Int {
    let range = elements ?? 0..<entry.tensor.count
    require(
      range.lowerBound >= 0 && range.upperBound <= entry.tensor.count,
      "elements \(range) of \(entry.tensor.name), which has \(entry.tensor.count)")
    require(
      targetCount == range.count, "a target of \(targetCount) elements for \(range.count)")
    return entry.bytes.lowerBound + range.lowerBound * entry.tensor.type.byteCount
  }
}
