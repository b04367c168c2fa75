// Small files and folders that are either there whole or not at all.

import DenseKernels
import Foundation

/// Bytes that are read, summed or written at once.
let ioChunk = 1 << 20

extension URL {
  /// The path for system calls, without a slash at its end.
  var plainPath: String {
    let path = path(percentEncoded: false)
    return path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path
  }
}

func zeroPadded(_ number: Int, _ width: Int) -> String {
  let digits = String(number)
  return String(repeating: "0", count: max(0, width - digits.count)) + digits
}

func createFolder(_ folder: URL) throws {
  do {
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  } catch let error as CocoaError where error.code == .fileWriteOutOfSpace {
    throw CheckpointError(
      .diskFull,
      "the disk is full: the folder \(folder.plainPath) cannot be made; free some space, then start "
        + "again",
      cause: error)
  } catch {
    throw CheckpointError(
      .inputOutput,
      "the folder \(folder.plainPath) cannot be made; check the disk and the permissions",
      cause: error)
  }
}

/// Removes a file or folder; one that is not there is no failure.
func removeIfThere(_ item: URL) throws {
  guard FileManager.default.fileExists(atPath: item.plainPath) else { return }
  do { try FileManager.default.removeItem(at: item) } catch {
    throw CheckpointError(
      .inputOutput, "\(item.plainPath) cannot be removed; check the permissions", cause: error)
  }
}

/// Writes a file and waits until it is on the disk.
func writeWhole(_ bytes: [UInt8], to url: URL) throws {
  try explainingFailures(whileWriting: url.plainPath, bytesNeeded: bytes.count) {
    let file = try PositionedFile(url.plainPath, for: .creating)
    try bytes.withBytes { try file.write($0, at: 0) }
    try file.synchronize()
  }
}

func readWhole(_ url: URL) throws -> [UInt8] {
  try explainingFailures {
    let file = try PositionedFile(url.plainPath, for: .reading)
    let bytes = Buffer<UInt8>(zeroed: try file.byteCount)
    try file.readElements(at: 0, into: bytes)
    return bytes.array
  }
}

/// What a folder is called between stepping aside and being removed.
let steppedAsideSuffix = ".replaced"

/// Puts `replacement` in the place of `folder`, then removes what was there.
///
/// No call of POSIX lets two folders trade places, so the old one steps aside first. A crash in
/// between leaves it whole under its other name.
func replaceFolder(_ folder: URL, by replacement: URL) throws {
  let parent = folder.deletingLastPathComponent().plainPath
  let aside = URL(filePath: folder.plainPath + steppedAsideSuffix)
  if FileManager.default.fileExists(atPath: folder.plainPath) {
    try removeIfThere(aside)
    try PositionedFile.move(folder.plainPath, to: aside.plainPath)
  }
  try PositionedFile.move(replacement.plainPath, to: folder.plainPath)
  try PositionedFile.synchronizeFolder(parent)
  try removeIfThere(aside)
}

/// - Throws: `damaged` when the file is missing or has another length.
func checkSize(of file: Manifest.File, in folder: URL) throws {
  let path = folder.appending(path: file.name).plainPath
  let found: Int
  do { found = try PositionedFile(path, for: .reading).byteCount } catch {
    throw error.isMissing
      ? CheckpointError(.damaged, "\(path) is missing; use an older checkpoint", cause: error)
      : CheckpointError.explaining(error)
  }
  guard found == file.byteCount else {
    throw CheckpointError(
      .damaged, "\(path) has \(found) bytes instead of \(file.byteCount); use an older checkpoint")
  }
}
