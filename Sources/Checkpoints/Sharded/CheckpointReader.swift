// Loads parts of a sharded checkpoint in any layout, whatever layout it was saved in.
//
// No element is handed out before the whole slice it comes from has matched its checksum. Memory stays
// bounded by one chunk beside the caller's target.

import Basics
import Compression
package import DenseKernels
package import Foundation

/// A damaged part of a checkpoint.
package struct CheckpointProblem: Equatable, Sendable, CustomStringConvertible {
  package let file: String
  /// nil when the file as a whole, or its header, is meant.
  package let tensor: String?
  package let reason: String

  package var description: String {
    tensor.map { "\(file), tensor \($0): \(reason)" } ?? "\(file): \(reason)"
  }
}

/// A checkpoint with a valid manifest and files of the right sizes. Used by one task at a time.
package final class CheckpointReader {
  package let folder: URL
  package let manifest: Manifest
  private var openFiles: [String: PositionedFile] = [:]
  /// Slices that matched their checksum, by file and first byte.
  private var verified = Set<SlicePlace>()

  private struct SlicePlace: Hashable {
    let file: String
    let firstByte: Int
  }

  /// - Throws: `notFound`, `damaged`, `unsupported`, `inputOutput`.
  package init(opening folder: URL) throws {
    let manifestURL = folder.appending(path: Manifest.fileName)
    manifest = try Manifest(decoding: try readWhole(manifestURL), path: manifestURL.plainPath)
    self.folder = folder
    for file in manifest.files { try checkSize(of: file, in: folder) }
  }

  // MARK: What it holds

  /// Compares names and shapes with those of the model that wants to load.
  /// - Throws: `wrongModel` with every missing, unexpected and misshapen tensor.
  package func requireTensors(_ expected: [String: [Int]], allowingOthers: Bool = false) throws {
    try checkNames(
      of: manifest.tensors.mapValues(\.shape), against: expected, allowingOthers: allowingOthers,
      source: folder.plainPath)
  }

  /// - Throws: `wrongModel` when the checkpoint was written for other names or shapes.
  package func requireModel(fingerprint: String) throws {
    guard manifest.fields.modelFingerprint == fingerprint else {
      throw CheckpointError(
        .wrongModel,
        "\(folder.plainPath) is a checkpoint of another model (fingerprint "
          + "\(manifest.fields.modelFingerprint), this model has \(fingerprint)); use the "
          + "configuration of that run or another run folder")
    }
  }

  // MARK: Reading

  /// Reads a flat range of a tensor, converted to Float32.
  /// - Precondition: `target` has as many elements as `elements`.
  /// - Throws: `damaged` naming file, tensor and slice; `notFound` for an unknown name;
  ///   `unsupported` for a tensor that is not a float.
  package func read(
    _ name: String, elements: Range<Int>, into target: Buffer<Float>
  ) throws {
    let tensor = try tensor(name)
    guard tensor.type.isConvertible else {
      throw CheckpointError(
        .unsupported,
        "\(folder.plainPath): tensor \(name) is \(tensor.type.rawValue), a float type is needed here"
      )
    }
    try read(name, tensor, elements, into: target) { file, offset, part in
      try file.readFloats(tensor.type, at: offset, into: part)
    }
  }

  /// Reads a whole tensor, converted to Float32.
  package func floats(_ name: String) throws -> [Float] {
    let target = Buffer<Float>(zeroed: try tensor(name).count)
    try read(name, elements: 0..<target.count, into: target)
    return target.array
  }

  /// Reads a box of a tensor, converted to Float32, row-major in the box.
  package func read(_ name: String, box: TensorBox, into target: Buffer<Float>) throws {
    require(target.count == box.count, "a target of \(target.count) for \(box.count)")
    for run in box.runs(in: try tensor(name).shape) {
      try read(
        name, elements: run.tensorRange, into: target[run.boxStart..<run.boxStart + run.count])
    }
  }

  /// Reads a flat range of a tensor as it is stored.
  /// - Throws: as `read`; `unsupported` when the tensor has another element type.
  package func readExactly<Element: StorableElement>(
    _ name: String, elements: Range<Int>, into target: Buffer<Element>
  ) throws {
    let tensor = try tensor(name)
    guard tensor.type == Element.storedType else {
      throw CheckpointError(
        .unsupported,
        "\(folder.plainPath): tensor \(name) is \(tensor.type.rawValue), "
          + "\(Element.storedType.rawValue) is needed here")
    }
    try read(name, tensor, elements, into: target) { file, offset, part in
      try file.readElements(at: offset, into: part)
    }
  }

  private func tensor(_ name: String) throws -> Manifest.Tensor {
    guard let tensor = manifest.tensors[name] else {
      throw CheckpointError(.notFound, "\(folder.plainPath) has no tensor \(name)")
    }
    return tensor
  }

  private func read<Element>(
    _ name: String, _ tensor: Manifest.Tensor, _ elements: Range<Int>,
    into target: Buffer<Element>,
    _ readPart: (PositionedFile, _ offset: Int, Buffer<Element>) throws -> Void
  ) throws {
    require(
      elements.lowerBound >= 0 && elements.upperBound <= tensor.count,
      "elements \(elements) of \(name), which has \(tensor.count)")
    require(
      target.count == elements.count,
      "a target of \(target.count) elements for \(elements.count) of \(name)")
    for slice in tensor.slices {
      for run in slice.box.runs(in: tensor.shape) {
        let wanted = run.tensorRange.clamped(to: elements)
        guard !wanted.isEmpty else { continue }
        try verify(slice, of: name)
        let inBox = run.boxStart + wanted.lowerBound - run.tensorStart
        let part = target[
          wanted.lowerBound - elements.lowerBound..<wanted.upperBound - elements.lowerBound]
        let file = try openFile(slice.file)
        try explainingFailures {
          try readPart(file, slice.firstByte + inBox * tensor.type.byteCount, part)
        }
      }
    }
  }

  // MARK: Verification

  /// Compares every file with the manifest: sizes, headers and, if `deep`, every slice.
  package func verify(deep: Bool) -> [CheckpointProblem] {
    var problems: [CheckpointProblem] = []
    func check(_ file: String, _ tensor: String?, _ body: () throws -> Void) {
      do { try body() } catch {
        let reason = (error as? CheckpointError)?.message ?? "\(error)"
        problems.append(CheckpointProblem(file: file, tensor: tensor, reason: reason))
      }
    }
    for file in manifest.files {
      check(file.name, nil) {
        try checkSize(of: file, in: folder)
        try verifyHeader(of: file)
      }
    }
    guard deep else { return problems }
    for (name, tensor) in manifest.tensors.sorted(by: { $0.key < $1.key }) {
      for slice in tensor.slices { check(slice.file, name) { try verify(slice, of: name) } }
    }
    return problems
  }

  private func verifyHeader(of file: Manifest.File) throws {
    let found = try checksum(of: 0..<file.headerByteCount, in: file.name)
    guard found == file.headerChecksum else {
      throw CheckpointError(
        .damaged,
        "the header of \(folder.appending(path: file.name).plainPath) does not match its checksum; "
          + "use an older checkpoint")
    }
  }

  private func verify(_ slice: Manifest.Slice, of name: String) throws {
    let place = SlicePlace(file: slice.file, firstByte: slice.firstByte)
    guard !verified.contains(place) else { return }
    guard try checksum(of: slice.bytes, in: slice.file) == slice.checksum else {
      throw CheckpointError(
        .damaged,
        "\(folder.appending(path: slice.file).plainPath) is damaged: tensor \(name), slice at "
          + "\(slice.box.offset) of shape \(slice.box.shape) does not match its checksum; use an "
          + "older checkpoint")
    }
    verified.insert(place)
  }

  private func checksum(of bytes: Range<Int>, in fileName: String) throws -> UInt32 {
    let file = try openFile(fileName)
    return try explainingFailures {
      var checksum = CRC32C()
      let chunk = Buffer<UInt8>(zeroed: min(ioChunk, bytes.count))
      var start = bytes.lowerBound
      while start < bytes.upperBound {
        let part = chunk[0..<min(chunk.count, bytes.upperBound - start)]
        try file.readElements(at: start, into: part)
        part.withBytes { checksum.update($0) }
        start += part.count
      }
      return checksum.value
    }
  }

  private func openFile(_ name: String) throws -> PositionedFile {
    if let file = openFiles[name] { return file }
    let path = folder.appending(path: name).plainPath
    let file = try explainingFailures { try PositionedFile(path, for: .reading) }
    openFiles[name] = file
    return file
  }
}

/// - Throws: `wrongModel` with every missing, unexpected and misshapen name.
func checkNames(
  of found: [String: [Int]], against expected: [String: [Int]], allowingOthers: Bool, source: String
) throws {
  var problems = expected.keys.filter { found[$0] == nil }.sorted().map { "\($0) is missing" }
  if !allowingOthers {
    problems += found.keys.filter { expected[$0] == nil }.sorted().map { "\($0) is unexpected" }
  }
  for (name, shape) in expected.sorted(by: { $0.key < $1.key }) {
    if let other = found[name], other != shape {
      problems.append("\(name) has shape \(other) instead of \(shape)")
    }
  }
  guard problems.isEmpty else {
    throw CheckpointError(
      .wrongModel,
      "\(source) holds another model; check the model configuration. \(problems.count) differences:\n"
        + problems.map { "  \($0)" }.joined(separator: "\n"))
  }
}
