import DenseKernels
import Foundation
import TestSupport
import Testing

@testable import Checkpoints

struct CheckpointStoreTests {
  private func steps(_ store: CheckpointStore) -> [Int] { store.candidates().map(\.step) }

  @Test func `candidates come newest first and only by exact names`() throws {
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      #expect(CheckpointStore(folder.appending(path: "none")).candidates().isEmpty)
      for name in [
        "step-00000002", "step-00000010", "step-100000000", "step-00000003.tmp", "step-7", "latest",
        "step--0000001", "step-00000004.replaced", "step-00000010.replaced",
      ] {
        try createFolder(folder.appending(path: name))
      }
      #expect(steps(store) == [100_000_000, 10, 4, 2])
    }
  }

  @Test func `a save killed in any phase leaves the older checkpoint the newest`() throws {
    for phase in 0..<4 {
      try withTemporaryFolder { folder in
        let store = CheckpointStore(folder)
        try save(smallModel(step: 1), step: 1, in: store)
        let writer = store.writer(step: 2)
        try writer.begin()
        if phase >= 1 { _ = try writer.writePieces(smallModel(step: 2)[0], writer: 0, of: 2) }
        if phase >= 2 { _ = try writer.writePieces(smallModel(step: 2)[1], writer: 1, of: 2) }
        if phase >= 3 {
          try writeWhole([0x7B], to: writer.temporaryFolder.appending(path: "manifest.json"))
        }
        // Here the process dies. Another one starts:
        let (reader, skipped) = store.newestValid()
        #expect(reader?.manifest.fields.step == 1)
        #expect(skipped.isEmpty)
        try save(smallModel(step: 3), step: 3, in: store)
        #expect(
          try FileManager.default.contentsOfDirectory(atPath: folder.plainPath).sorted()
            == ["latest", "step-00000001", "step-00000003"])
      }
    }
  }

  @Test func `a checkpoint that stepped aside is found, and put back by the next save`() throws {
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      try save(smallModel(step: 5), step: 5, in: store)
      let aside = folder.appending(path: "step-00000005.replaced")
      try FileManager.default.moveItem(at: store.folder(ofStep: 5), to: aside)
      #expect(try store.newestValid().reader?.floats("b") == [element(0) + 5])
      try store.removeLeftovers()
      #expect(store.newestValid().reader?.folder.lastPathComponent == "step-00000005")
      try createFolder(aside)
      try store.removeLeftovers()
      #expect(!FileManager.default.fileExists(atPath: aside.plainPath))
    }
  }

  @Test func `each damaged checkpoint is skipped with its reason`() throws {
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      for step in 1...6 { try save(smallModel(step: step), step: step, in: store) }
      func file(_ step: Int, _ name: String) -> URL {
        store.folder(ofStep: step).appending(path: name)
      }
      try FileManager.default.removeItem(at: file(6, "manifest.json"))
      var manifest = try readWhole(file(5, "manifest.json"))
      manifest[40] ^= 1
      try Data(manifest).write(to: file(5, "manifest.json"))
      try FileManager.default.removeItem(at: file(4, "rank-00001.safetensors"))
      let shard = try readWhole(file(3, "rank-00000.safetensors"))
      try Data(shard.dropLast()).write(to: file(3, "rank-00000.safetensors"))
      var flipped = try readWhole(file(2, "rank-00000.safetensors"))
      flipped[flipped.count - 1] ^= 0x10
      try Data(flipped).write(to: file(2, "rank-00000.safetensors"))

      let (shallow, skipped) = store.newestValid()
      #expect(shallow?.manifest.fields.step == 2)
      #expect(skipped.map(\.candidate.step) == [6, 5, 4, 3])
      for (skip, reason) in zip(
        skipped, ["is not there", "checksum", "is missing", "bytes instead of"])
      {
        #expect(skip.description.contains(reason), "\(skip)")
      }
      #expect(throws: CheckpointError.self) { try shallow?.floats("a.weight") }

      let (deep, all) = store.newestValid(deep: true)
      #expect(deep?.manifest.fields.step == 1)
      #expect(all.last?.description.contains("a.weight") == true)
      #expect(try deep?.floats("b") == [element(0) + 1])
    }
  }

  @Test func `a shard cut at any length is not a checkpoint`() throws {
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      try save(smallModel(step: 1), step: 1, in: store)
      for name in ["rank-00000.safetensors", "manifest.json"] {
        let url = store.folder(ofStep: 1).appending(path: name)
        let whole = try readWhole(url)
        let file = try PositionedFile(url.plainPath, for: .locking)
        for length in whole.indices.reversed() {
          try file.truncate(to: length)
          #expect(store.newestValid().reader == nil, "\(name) cut to \(length)")
        }
        try Data(whole).write(to: url)
      }
      #expect(store.newestValid().reader != nil)
    }
  }

  @Test func `retention keeps the newest valid ones and never deletes the last`() throws {
    try withTemporaryFolder { folder in
      let store = CheckpointStore(folder)
      #expect(try store.prune(keep: 1).isEmpty)
      for step in 1...6 { try save(smallModel(step: step), step: step, in: store) }
      for step in [4, 6] {
        try FileManager.default.removeItem(
          at: store.folder(ofStep: step).appending(path: "manifest.json"))
      }
      try store.prune(keep: 3)
      #expect(steps(store) == [6, 5, 3, 2])
      try store.prune(keep: 1, newest: 3)
      #expect(steps(store) == [6, 5, 3])
      try store.prune(keep: 1)
      #expect(steps(store) == [6, 5])
      try FileManager.default.removeItem(
        at: store.folder(ofStep: 5).appending(path: "rank-00000.safetensors"))
      #expect(try store.prune(keep: 1).isEmpty)
    }
  }
}
