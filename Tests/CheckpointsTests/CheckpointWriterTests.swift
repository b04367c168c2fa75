import DenseKernels
import Foundation
import TestSupport
import Testing

@testable import Checkpoints

struct CheckpointWriterTests {
  private func contents(of folder: URL) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder.plainPath).sorted()
  }

  @Test func `a save leaves one file per writer, the manifest and the hint`() throws {
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder.appending(path: "run/checkpoints"))
      try save(smallModel(step: 1200, writerCount: 2) + [[]], step: 1200, in: store)
      #expect(try contents(of: store.folder) == ["latest", "step-00001200"])
      #expect(
        try contents(of: store.folder(ofStep: 1200))
          == ["manifest.json", "rank-00000.safetensors", "rank-00001.safetensors"])
      #expect(
        try String(contentsOf: store.folder.appending(path: "latest"), encoding: .utf8)
          == "step-00001200\n")
      // The files are safetensors files of their own right.
      let file = try SafetensorsReader(
        opening: store.folder(ofStep: 1200).appending(path: "rank-00000.safetensors"))
      #expect(try file.floats("a.weight@0,0") == elements(0..<5).map { $0 + 1200 })
    }
  }

  @Test func `saving a step again replaces it`() throws {
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      try save(smallModel(step: 5), step: 5, in: store)
      try save(smallModel(step: 6), step: 5, in: store)
      let reader = try #require(store.newestValid().reader)
      #expect(try reader.floats("b") == [element(0) + 6])
      #expect(try contents(of: folder) == ["latest", "step-00000005"])
    }
  }

  @Test func `pieces that do not cover each element once are refused`() throws {
    func piece(_ range: Range<Int>, shape: [Int] = [2, 3]) -> TensorPiece {
      TensorPiece("a", shape: shape, .elements(range), elements(range))
    }
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      try save(smallModel(step: 1), step: 1, in: store)
      for (pieces, reason) in [
        ([[piece(0..<2)], [piece(3..<6)]], "a: elements 2..<3 are missing"),
        ([[piece(0..<4)], [piece(3..<6)]], "a: elements 3..<4 were given twice"),
        ([[piece(0..<3)], [piece(3..<6, shape: [6])]], "from an earlier one"),
        (
          [[piece(0..<3)], [TensorPiece("a", shape: [2, 3], .elements(3..<6), [1.0, 2.0, 3.0])]],
          "F64"
        ),
      ] {
        let error = #expect(throws: CheckpointError.self) { try save(pieces, step: 2, in: store) }
        #expect(error?.code == .incompleteCoverage)
        #expect(error?.message.contains(reason) == true, "\(error?.message ?? "")")
        #expect(try contents(of: folder) == ["latest", "step-00000001"])
      }
    }
  }

  @Test func `a commit wants the list of each writer once and whole files`() throws {
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      let writer = store.writer(step: 3)
      func lists() throws -> [PieceList] {
        try writer.begin()
        return try smallModel(step: 3).enumerated().map {
          try writer.writePieces($1, writer: $0, of: 2)
        }
      }
      let fields = Manifest.Fields(step: 3, phase: "")
      for chosen in [[], [0], [0, 0], [0, 1, 1]] {
        let all = try lists()
        let error = #expect(throws: CheckpointError.self) {
          try writer.commit(chosen.map { all[$0] }, fields)
        }
        #expect(error?.code == .incompleteCoverage)
      }
      let all = try lists()
      try PositionedFile(
        writer.temporaryFolder.appending(path: "rank-00001.safetensors").plainPath, for: .creating
      ).synchronize()
      let error = #expect(throws: CheckpointError.self) { try writer.commit(all, fields) }
      #expect(error?.code == .damaged)
      #expect(store.candidates().isEmpty)
    }
  }

  /// /dev/full behind a file's name answers every write as a full disk does.
  @Test(arguments: ["rank-00001.safetensors", "manifest.json"])
  func `on a full disk the save is undone and older checkpoints stay`(name: String) throws {
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      try save(smallModel(step: 1), step: 1, in: store)
      let writer = store.writer(step: 2)
      try writer.begin()
      let path = writer.temporaryFolder.appending(path: name).plainPath
      try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: "/dev/full")
      let error = #expect(throws: CheckpointError.self) {
        let lists = try smallModel(step: 2).enumerated().map {
          try writer.writePieces($1, writer: $0, of: 2)
        }
        try writer.commit(lists, Manifest.Fields(step: 2, phase: ""))
      }
      #expect(error?.code == .diskFull)
      #expect(error?.message.contains(path) == true)
      #expect(error?.message.contains("it needs") == true)
      #expect(try contents(of: folder) == ["latest", "step-00000001"])
      #expect(CheckpointStore.verify(store.folder(ofStep: 1), deep: true).isEmpty)
      // The other writers learn that somebody gave up.
      let later = #expect(throws: CheckpointError.self) {
        try writer.writePieces(smallModel(step: 2)[0], writer: 0, of: 2)
      }
      #expect(later?.code == .notFound)
    }
  }
}
