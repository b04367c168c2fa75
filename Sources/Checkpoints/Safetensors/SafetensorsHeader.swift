// The header of a safetensors file: 8 bytes little-endian n, n bytes of JSON, then the tensors.
//
// Parsing checks every rule of the format, so that what passes can be read without a second look:
// the tensors fill the rest of the file in order, without holes or overlap, no name comes twice, and
// each range is as long as its shape and type say.
// Source: huggingface/safetensors, README.md and safetensors/src/tensor.rs.

import Basics

/// One tensor of a file that is to be written: what a header needs to know of it.
package struct TensorDeclaration: Hashable, Codable, Sendable {
  package let name: String
  package let type: StoredType
  package let shape: [Int]

  package init(_ name: String, _ type: StoredType, shape: [Int]) {
    require(shape.allSatisfy { $0 >= 0 }, "\(name) has a negative size in shape \(shape)")
    self.name = name
    self.type = type
    self.shape = shape
  }

  package var count: Int { shape.reduce(1, *) }
  package var byteCount: Int { count * type.byteCount }
}

/// What a file holds and where.
package struct SafetensorsHeader: Sendable {
  package struct Entry: Sendable, Equatable {
    package let tensor: TensorDeclaration
    /// Bytes of the file, counted from its first byte.
    package let bytes: Range<Int>
  }

  /// In the order of the file.
  package let entries: [Entry]
  package let metadata: [String: String]
  /// Where the first tensor starts: the size of the header with its length field.
  package let dataStart: Int

  static let lengthFieldByteCount = 8
  /// The limit of the reference implementation.
  static let largestJSONByteCount = 100_000_000

  package var fileByteCount: Int { entries.last?.bytes.upperBound ?? dataStart }

  /// Lays tensors out as the reference writer does: by falling element size, then by name, so that
  /// each is aligned to its element.
  /// - Precondition: no two tensors share a name.
  init(layingOut tensors: [TensorDeclaration], metadata: [String: String]) {
    let ordered = tensors.sorted {
      ($1.type.byteCount, $0.name) < ($0.type.byteCount, $1.name)
    }
    require(
      Set(ordered.map(\.name)).count == ordered.count,
      "\(ordered.count) tensors share \(Set(ordered.map(\.name)).count) names")
    let json = Self.json(of: ordered, metadata: metadata)
    require(
      json.count <= Self.largestJSONByteCount,
      "a header of \(json.count) bytes, at most \(Self.largestJSONByteCount) are allowed")
    self.dataStart = Self.lengthFieldByteCount + json.count
    self.metadata = metadata
    var start = dataStart
    self.entries = ordered.map { tensor in
      defer { start += tensor.byteCount }
      return Entry(tensor: tensor, bytes: start..<start + tensor.byteCount)
    }
  }

  /// The bytes in front of the data: length field, JSON, padding.
  func encoded() -> [UInt8] {
    let json = Self.json(of: entries.map(\.tensor), metadata: metadata)
    let length = UInt64(json.count)
    return (0..<8).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) } + json
  }

  private static func json(of ordered: [TensorDeclaration], metadata: [String: String]) -> [UInt8] {
    var members: [String] = []
    if !metadata.isEmpty {
      let pairs = metadata.sorted { $0.key < $1.key }
        .map { "\($0.key.jsonQuoted):\($0.value.jsonQuoted)" }
      members.append("\"__metadata__\":{\(pairs.joined(separator: ","))}")
    }
    var start = 0
    for tensor in ordered {
      let shape = tensor.shape.map(String.init).joined(separator: ",")
      members.append(
        "\(tensor.name.jsonQuoted):{\"dtype\":\"\(tensor.type.rawValue)\","
          + "\"shape\":[\(shape)],\"data_offsets\":[\(start),\(start + tensor.byteCount)]}")
      start += tensor.byteCount
    }
    var json = Array("{\(members.joined(separator: ","))}".utf8)
    json.append(contentsOf: repeatElement(0x20, count: (8 - json.count % 8) % 8))
    return json
  }

  /// Reads and checks the JSON of a header.
  /// - Throws: `damaged` or `unsupported`, naming the rule that is broken.
  init(parsing json: [UInt8], fileByteCount: Int, path: String) throws {
    let dataStart = Self.lengthFieldByteCount + json.count
    func damaged(_ reason: String) -> CheckpointError {
      CheckpointError(.damaged, "\(path) is not a whole safetensors file: \(reason)")
    }
    guard json.first == UInt8(ascii: "{") else { throw damaged("its header does not start with {") }
    let members: [(name: String, value: JSONValue)]
    do {
      guard case .object(let parsed) = try JSONText.parse(json) else {
        throw damaged("its header is not an object")
      }
      members = parsed
    } catch let error as JSONSyntaxError {
      throw damaged("its header has \(error)")
    }

    var names = Set<String>()
    var metadata: [String: String] = [:]
    var entries: [Entry] = []
    for (name, value) in members {
      guard names.insert(name).inserted else { throw damaged("\(name) comes twice") }
      do {
        if name == "__metadata__" {
          metadata = try Self.strings(of: value)
        } else {
          entries.append(try Self.entry(name, value, dataStart: dataStart))
        }
      } catch let rule {
        if let type = rule.unknownType {
          throw CheckpointError(
            .unsupported,
            "\(path): tensor \(name) has element type \(type), which is not supported; convert the "
              + "file to F32, BF16 or F16")
        }
        throw damaged("\(name) \(rule.reason)")
      }
    }

    entries.sort {
      ($0.bytes.lowerBound, $0.bytes.upperBound) < ($1.bytes.lowerBound, $1.bytes.upperBound)
    }
    var end = dataStart
    for entry in entries {
      guard entry.bytes.lowerBound >= end else {
        throw damaged("\(entry.tensor.name) overlaps another tensor")
      }
      guard entry.bytes.lowerBound == end else {
        throw damaged(
          "there is a hole of \(entry.bytes.lowerBound - end) bytes before \(entry.tensor.name)")
      }
      end = entry.bytes.upperBound
    }
    guard end == fileByteCount else {
      throw damaged("it has \(fileByteCount) bytes, its header tells of \(end)")
    }
    self.entries = entries
    self.metadata = metadata
    self.dataStart = dataStart
  }

  private struct BrokenRule: Error {
    let reason: String
    var unknownType: String?
  }

  private static func strings(of value: JSONValue) throws(BrokenRule) -> [String: String] {
    guard case .object(let members) = value else { throw BrokenRule(reason: "is not an object") }
    var result: [String: String] = [:]
    for (key, member) in members {
      guard case .string(let text) = member else {
        throw BrokenRule(reason: "has a value for \(key) that is not a string")
      }
      guard result.updateValue(text, forKey: key) == nil else {
        throw BrokenRule(reason: "has \(key) twice")
      }
    }
    return result
  }

  private static func entry(_ name: String, _ value: JSONValue, dataStart: Int) throws(BrokenRule)
    -> Entry
  {
    guard case .object(let members) = value else { throw BrokenRule(reason: "is not an object") }
    var fields: [String: JSONValue] = [:]
    for (key, member) in members where fields.updateValue(member, forKey: key) != nil {
      throw BrokenRule(reason: "has \(key) twice")
    }
    guard case .string(let typeName) = fields["dtype"] else {
      throw BrokenRule(reason: "has no dtype")
    }
    guard let type = StoredType(rawValue: typeName) else {
      throw BrokenRule(reason: "", unknownType: typeName)
    }
    guard let shape = integers(of: fields["shape"]) else {
      throw BrokenRule(reason: "has no shape of whole sizes")
    }
    guard let offsets = integers(of: fields["data_offsets"]), offsets.count == 2,
      offsets[0] <= offsets[1], offsets[1] <= Int.max - dataStart
    else { throw BrokenRule(reason: "has no data_offsets [begin, end]") }
    var byteCount = type.byteCount
    for size in shape {
      let (product, overflow) = byteCount.multipliedReportingOverflow(by: size)
      guard !overflow else { throw BrokenRule(reason: "has a shape beyond all memory, \(shape)") }
      byteCount = product
    }
    guard offsets[1] - offsets[0] == byteCount else {
      throw BrokenRule(
        reason: "has \(offsets[1] - offsets[0]) bytes, but \(typeName) \(shape) needs \(byteCount)")
    }
    return Entry(
      tensor: TensorDeclaration(name, type, shape: shape),
      bytes: dataStart + offsets[0]..<dataStart + offsets[1])
  }

  private static func integers(of value: JSONValue?) -> [Int]? {
    guard case .array(let values) = value else { return nil }
    var result: [Int] = []
    for value in values {
      guard case .unsigned(let whole) = value else { return nil }
      result.append(whole)
    }
    return result
  }
}
