// The table of contents of a sharded checkpoint, written last. What is not in a manifest with a right
// checksum does not exist.
//
// The file is one JSON object. Its first member is the CRC-32C of all bytes after that member, so the
// manifest vouches for itself, and through the checksums inside it for every byte of every file.

import Compression
import Foundation

/// What a checkpoint holds, where, and what else decides the future of the run.
package struct Manifest: Codable, Equatable, Sendable {
  /// What the caller says about the run.
  package struct Fields: Codable, Equatable, Sendable {
    package var step: Int
    package var phase: String
    /// Sample counter, optimizer steps, update counters of the roles, ….
    package var counters: [String: Int]
    /// The resolved configuration as text, enough to repeat the run.
    package var configuration: String
    package var mesh: String
    package var libraryVersions: [String: String]
    /// See `Manifest.fingerprint(of:)`.
    package var modelFingerprint: String
    /// Names the training data; nil where nobody said.
    package var dataFingerprint: String?
    /// The checkpoint folder of another run, or of an earlier course of this one, that the run was
    /// told to start from; nil where it was told nothing.
    package var origin: String?

    package init(
      step: Int, phase: String, counters: [String: Int] = [:], configuration: String = "",
      mesh: String = "", libraryVersions: [String: String] = [:], modelFingerprint: String = "",
      dataFingerprint: String? = nil, origin: String? = nil
    ) {
      self.step = step
      self.phase = phase
      self.counters = counters
      self.configuration = configuration
      self.mesh = mesh
      self.libraryVersions = libraryVersions
      self.modelFingerprint = modelFingerprint
      self.dataFingerprint = dataFingerprint
      self.origin = origin
    }
  }

  /// One safetensors file of the folder.
  package struct File: Codable, Equatable, Sendable {
    package let name: String
    package let byteCount: Int
    package let headerByteCount: Int
    package let headerChecksum: UInt32
  }

  /// A box of a tensor in a file.
  package struct Slice: Codable, Equatable, Sendable {
    package let file: String
    package let box: TensorBox
    /// From the first byte of the file.
    package let firstByte: Int
    package let byteCount: Int
    package let checksum: UInt32

    package var bytes: Range<Int> { firstByte..<firstByte + byteCount }
  }

  package struct Tensor: Codable, Equatable, Sendable {
    package let type: StoredType
    package let shape: [Int]
    package var slices: [Slice]

    package var count: Int { shape.reduce(1, *) }
  }

  package static let currentFormatVersion = 1
  package static let fileName = "manifest.json"

  package let formatVersion: Int
  package let writerCount: Int
  package let fields: Fields
  package let files: [File]
  package let tensors: [String: Tensor]

  package var byteCount: Int { files.reduce(0) { $0 + $1.byteCount } }

  /// A short text that differs when names or shapes of a model differ.
  package static func fingerprint(of tensors: [String: [Int]]) -> String {
    var checksum = CRC32C()
    for (name, shape) in tensors.sorted(by: { $0.key < $1.key }) {
      checksum.update(Array("\(name) \(shape)\n".utf8))
    }
    return "\(tensors.count)-\(hexadecimal(checksum.value))"
  }

  // MARK: The file

  private static let opening = "{\"checksum\":\"crc32c:"

  private static func firstMember(_ checksum: UInt32) -> [UInt8] {
    Array("\(opening)\(hexadecimal(checksum))\",\n".utf8)
  }

  private static func hexadecimal(_ value: UInt32) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 8 - digits.count) + digits
  }

  func encoded() throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let rest = [UInt8](try encoder.encode(self)).dropFirst() + [UInt8(ascii: "\n")]
    return Self.firstMember(CRC32C.checksum(of: Array(rest))) + rest
  }

  /// - Throws: `damaged` when a byte is not as written, `unsupported` for a newer format.
  init(decoding bytes: [UInt8], path: String) throws {
    let start = Self.firstMember(0).count
    let rest = Array(bytes.dropFirst(start))
    guard Array(bytes.prefix(start)) == Self.firstMember(CRC32C.checksum(of: rest)) else {
      throw CheckpointError(
        .damaged, "\(path) is damaged: its checksum does not match; use an older checkpoint")
    }
    struct Version: Decodable { let formatVersion: Int }
    let object = Data([UInt8(ascii: "{")] + rest)
    do {
      let version = try JSONDecoder().decode(Version.self, from: object).formatVersion
      guard version == Self.currentFormatVersion else {
        throw CheckpointError(
          .unsupported,
          "\(path) has format version \(version), this program reads "
            + "\(Self.currentFormatVersion); use the program that wrote it")
      }
      self = try JSONDecoder().decode(Self.self, from: object)
    } catch let error as DecodingError {
      throw CheckpointError(
        .damaged, "\(path) is not a manifest; use an older checkpoint", cause: error)
    }
  }

  init(
    formatVersion: Int, writerCount: Int, fields: Fields, files: [File], tensors: [String: Tensor]
  ) {
    self.formatVersion = formatVersion
    self.writerCount = writerCount
    self.fields = fields
    self.files = files
    self.tensors = tensors
  }
}
