// Writes one safetensors file tensor by tensor. The header needs only names, types and shapes, so it
// goes first and no tensor has to be in memory before its turn.

import Basics
package import DenseKernels
package import Foundation

/// A safetensors file being written. It is whole, and durable, once `finish` has returned.
package final class SafetensorsWriter {
  package let path: String
  package let header: SafetensorsHeader
  let headerBytes: [UInt8]
  private let file: PositionedFile
  private let entries: [String: SafetensorsHeader.Entry]
  private var writtenByteCounts: [String: Int] = [:]

  /// - Throws: `diskFull`, `notFound` (no such folder), `inputOutput`.
  package init(
    creating url: URL, tensors: [TensorDeclaration], metadata: [String: String] = [:]
  ) throws {
    let path = url.path(percentEncoded: false)
    let header = SafetensorsHeader(layingOut: tensors, metadata: metadata)
    let headerBytes = header.encoded()
    self.path = path
    self.header = header
    self.headerBytes = headerBytes
    self.entries = Dictionary(uniqueKeysWithValues: header.entries.map { ($0.tensor.name, $0) })
    self.file = try explainingFailures(whileWriting: path, bytesNeeded: header.fileByteCount) {
      let file = try PositionedFile(path, for: .creating)
      try headerBytes.withBytes { try file.write($0, at: 0) }
      return file
    }
  }

  /// Appends Float32 elements to a tensor, converted to its stored type: F32 as it is, BF16 and F16
  /// rounded to nearest even. Tensors may come in any order, the parts of one in theirs.
  package func append(_ values: Buffer<Float>, to name: String) throws {
    let type = entry(name).tensor.type
    require(type.isConvertible, "\(name) is \(type.rawValue), which Float32 does not become")
    try values.forEachCodedChunk(as: type) { bytes in try append(bytes: bytes, to: name) }
  }

  package func append(_ values: [Float], to name: String) throws {
    try append(Buffer(values), to: name)
  }

  /// Appends elements that are coded already.
  package func append(bytes: RawSpan, to name: String) throws {
    let entry = entry(name)
    let written = writtenByteCounts[name, default: 0]
    require(
      written + bytes.byteCount <= entry.bytes.count,
      "\(written + bytes.byteCount) bytes for \(name), which has \(entry.bytes.count)")
    do {
      try file.write(bytes, at: entry.bytes.lowerBound + written)
    } catch {
      throw CheckpointError.explaining(
        error, whileWriting: path, bytesNeeded: header.fileByteCount)
    }
    writtenByteCounts[name] = written + bytes.byteCount
  }

  /// Returns the size of the file, once all of it is on the disk.
  /// - Precondition: every tensor was written whole.
  @discardableResult
  package func finish() throws -> Int {
    for entry in header.entries {
      let written = writtenByteCounts[entry.tensor.name, default: 0]
      require(
        written == entry.bytes.count,
        "\(written) of \(entry.bytes.count) bytes of \(entry.tensor.name) were written")
    }
    try explainingFailures(whileWriting: path, bytesNeeded: header.fileByteCount) {
      try file.synchronize()
    }
    return header.fileByteCount
  }

  func entry(_ name: String) -> SafetensorsHeader.Entry {
    guard let entry = entries[name] else {
      trap("\(path) was declared without tensor \(name)")
    }
    return entry
  }
}
