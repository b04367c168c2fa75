// Saves one step in three phases, so that any number of writers can drive it: `begin` (writer 0),
// `writePieces` (everyone), `commit` (writer 0). Until the rename inside `commit` nothing exists.
//
// Goals in order: 1 a crash at any moment leaves a valid older checkpoint, 2 every byte is vouched for
// by a checksum taken on its way to the disk, 3 speed. The caller gathers and places the barriers.

import Basics
import Compression
import DenseKernels
package import Foundation

/// The save of one step.
package struct CheckpointWriter: Sendable {
  /// The folder that the commit makes, `step-00001200`.
  package let folder: URL
  package let step: Int
  /// Where the files lie until then.
  let temporaryFolder: URL
  private let store: CheckpointStore

  /// - Parameter store: the folder of all checkpoints of the run.
  package init(store: CheckpointStore, step: Int) {
    self.store = store
    self.step = step
    folder = store.folder(ofStep: step)
    temporaryFolder = store.temporaryFolder(ofStep: step)
  }

  /// Makes the temporary folder, after clearing what an interrupted save left.
  /// One save at a time: another one in progress in this store would be cleared away.
  /// - Collective: called by writer 0 alone; the others wait for it.
  package func begin() throws {
    try store.removeLeftovers()
    try createFolder(temporaryFolder)
  }

  /// Writes the pieces of one writer into a file of their own and waits until they are on the disk.
  /// On failure the temporary folder is removed: this save cannot become a checkpoint any more.
  /// - Collective: each writer calls it once, after `begin`.
  /// - Precondition: no box of a tensor comes twice.
  /// - Throws: `diskFull`, `inputOutput`, `notFound` (another writer failed and removed the folder).
  package func writePieces(_ pieces: [TensorPiece], writer: Int, of writerCount: Int) throws
    -> PieceList
  {
    require(
      writer >= 0 && writer < writerCount, "writer \(writer) of \(writerCount) writers")
    do {
      return try write(pieces, writer: writer, of: writerCount)
    } catch let error as CheckpointError where error.code == .notFound {
      throw CheckpointError(
        .notFound,
        "\(temporaryFolder.plainPath) is gone: another writer could not save and removed it; its "
          + "message tells why",
        cause: error)
    } catch {
      abandon()
      throw error
    }
  }

  /// Checks coverage and files, writes the manifest, makes all durable and renames: the commit.
  /// On failure the temporary folder is removed.
  /// - Collective: called by writer 0 alone, with the lists of all writers.
  /// - Throws: `incompleteCoverage`, `damaged` (a file is not as long as reported), `diskFull`,
  ///   `inputOutput`.
  @discardableResult
  package func commit(_ lists: [PieceList], _ fields: Manifest.Fields) throws -> Manifest {
    require(fields.step == step, "fields of step \(fields.step) for step \(step)")
    do {
      let manifest = try Manifest(joining: lists, fields: fields)
      for file in manifest.files {
        try checkSize(of: file, in: temporaryFolder)
      }
      try writeWhole(
        try manifest.encoded(), to: temporaryFolder.appending(path: Manifest.fileName))
      try explainingFailures {
        try PositionedFile.synchronizeFolder(temporaryFolder.plainPath)
        try replaceFolder(folder, by: temporaryFolder)
      }
      store.writeLatestHint(step)
      return manifest
    } catch {
      abandon()
      throw error
    }
  }

  /// Gives the save up and frees its space.
  package func abandon() { try? FileManager.default.removeItem(at: temporaryFolder) }

  /// A box of a piece, with the elements of the piece that it holds.
  private struct Stored {
    let entryName: String
    let piece: TensorPiece
    let box: TensorBox
    let start: Int
  }

  private func write(_ pieces: [TensorPiece], writer: Int, of writerCount: Int) throws -> PieceList
  {
    var stored: [Stored] = []
    var tensors: [String: Manifest.Tensor] = [:]
    for piece in pieces {
      let declared = Manifest.Tensor(
        type: piece.values.elementType, shape: piece.shape, slices: [])
      let known = tensors.updateValue(declared, forKey: piece.name) ?? declared
      require(
        known == declared, "\(piece.name) is \(known) in one piece, \(declared) in another")
      var start = 0
      for box in piece.boxes {
        let place = box.offset.map(String.init).joined(separator: ",")
        stored.append(
          Stored(entryName: "\(piece.name)@\(place)", piece: piece, box: box, start: start))
        start += box.count
      }
    }
    guard !stored.isEmpty else {
      return PieceList(writer: writer, writerCount: writerCount, file: nil, tensors: tensors)
    }

    let fileName = "rank-\(zeroPadded(writer, 5)).safetensors"
    let file = try SafetensorsWriter(
      creating: temporaryFolder.appending(path: fileName),
      tensors: stored.map {
        TensorDeclaration($0.entryName, $0.piece.values.elementType, shape: $0.box.shape)
      },
      metadata: ["format": "pt", "step": String(step), "writer": "\(writer) of \(writerCount)"])
    for part in stored {
      let bytes = file.entry(part.entryName).bytes
      let checksum = try write(part, to: file)
      tensors[part.piece.name]?.slices.append(
        Manifest.Slice(
          file: fileName, box: part.box, firstByte: bytes.lowerBound, byteCount: bytes.count,
          checksum: checksum))
    }
    try file.finish()
    return PieceList(
      writer: writer, writerCount: writerCount,
      file: Manifest.File(
        name: fileName, byteCount: file.header.fileByteCount,
        headerByteCount: file.headerBytes.count,
        headerChecksum: CRC32C.checksum(of: file.headerBytes)),
      tensors: tensors)
  }

  /// Writes chunk by chunk, so that the checksum reads what the cache still holds.
  private func write(_ part: Stored, to file: SafetensorsWriter) throws -> UInt32 {
    let size = part.piece.values.elementType.byteCount
    var checksum = CRC32C()
    try part.piece.values.withStoredBytes { all in
      var rest = part.start * size..<(part.start + part.box.count) * size
      while !rest.isEmpty {
        let chunk = rest.prefix(ioChunk)
        let bytes = all.extracting(chunk.startIndex..<chunk.endIndex)
        checksum.update(bytes)
        try file.append(bytes: bytes, to: part.entryName)
        rest = chunk.endIndex..<rest.upperBound
      }
    }
    return checksum.value
  }
}
