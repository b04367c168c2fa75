import DenseKernels
import Foundation
import TestSupport
import Testing

@testable import Checkpoints

struct ManifestTests {
  private func example() throws -> Manifest {
    try withTemporaryFolder { folder in
      try save(
        smallModel(step: 4), step: 4, in: CheckpointStore(folder),
        fields: Manifest.Fields(
          step: 4, phase: "distill", counters: ["samples": 1 << 60, "optimizer.fake": 12],
          configuration: "seed: 7\nname: \"x/ü\"\n", mesh: "dp=2",
          libraryVersions: ["zstd": "1.5.4"],
          modelFingerprint: Manifest.fingerprint(of: ["a.weight": [3, 5]])))
    }
  }

  @Test func `a manifest reads back as it was`() throws {
    let manifest = try example()
    let bytes = try manifest.encoded()
    #expect(try Manifest(decoding: bytes, path: "m") == manifest)
    // Other programs read it as plain JSON.
    let object = try JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any]
    #expect((object?["checksum"] as? String)?.hasPrefix("crc32c:") == true)
    #expect(object?["formatVersion"] as? Int == 1)
  }

  @Test func `every flipped bit and every cut of a manifest is seen`() throws {
    let bytes = try example().encoded()
    for index in bytes.indices {
      for bit in 0..<8 {
        var flipped = bytes
        flipped[index] ^= 1 << bit
        #expect(throws: CheckpointError.self) { try Manifest(decoding: flipped, path: "m") }
      }
      #expect(throws: CheckpointError.self) {
        try Manifest(decoding: Array(bytes.prefix(index)), path: "m")
      }
    }
    #expect(throws: CheckpointError.self) { try Manifest(decoding: bytes + [0x20], path: "m") }
  }

  @Test func `a newer format is refused as such`() throws {
    let old = try example()
    let newer = Manifest(
      formatVersion: 2, writerCount: old.writerCount, fields: old.fields, files: old.files,
      tensors: old.tensors)
    let bytes = try newer.encoded()
    let error = #expect(throws: CheckpointError.self) { try Manifest(decoding: bytes, path: "m") }
    #expect(error?.code == .unsupported)
  }

  @Test func `fingerprints differ by name and shape only`() {
    let print = Manifest.fingerprint(of: ["a": [2, 3], "b": [1]])
    #expect(print == Manifest.fingerprint(of: ["b": [1], "a": [2, 3]]))
    #expect(print != Manifest.fingerprint(of: ["a": [3, 2], "b": [1]]))
    #expect(print != Manifest.fingerprint(of: ["a": [2, 3], "c": [1]]))
  }
}
