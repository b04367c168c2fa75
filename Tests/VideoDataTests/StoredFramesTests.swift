import Foundation
import TestSupport
import Testing

@testable import VideoData

@Suite struct StoredFramesTests {
  private let video = Video(
    frameCount: 5, height: 2, width: 3, bytes: (0..<90).map { UInt8($0 * 7 % 256) })

  @Test func `frames are read as they were written, all and some`() throws {
    try withTemporaryFolder { folder in
      let file = folder.appending(path: "frames.safetensors")
      let stored = try StoredFrames(writing: video, to: file)
      #expect(try stored.read(0..<5) == video)
      #expect(try stored.read(1..<4) == video.frames(1..<4))
      #expect(try stored.read(2..<2).frameCount == 0)
      #expect(try stored.isIntact() && stored.contentHash == Fingerprint(of: video.bytes).text)
    }
  }

  @Test func `content is checked in pieces, to the last byte`() throws {
    let long = Video(
      frameCount: 130, height: 1, width: 1, bytes: (0..<390).map { UInt8($0 * 11 % 256) })
    try withTemporaryFolder { folder in
      let file = folder.appending(path: "frames")
      let stored = try StoredFrames(writing: long, to: file)
      #expect(try stored.isIntact())
      var content = try Data(contentsOf: file)
      content[content.count - 1] ^= 1
      try content.write(to: file)
      #expect(try !stored.isIntact())
    }
  }

  @Test func `a file that is not what was written is named`() throws {
    try withTemporaryFolder { folder in
      let file = folder.appending(path: "frames.safetensors")
      let stored = try StoredFrames(writing: video, to: file)
      let other = StoredFrames(
        in: file, frameCount: 5, height: 3, width: 2, contentHash: stored.contentHash)
      #expect(videoError { _ = try other.read(0..<1) }?.code == .damagedSet)
      try Data(Data(contentsOf: file).dropLast(50)).write(to: file)
      #expect(videoError { _ = try stored.read(0..<5) }?.code == .damagedSet)
      try FileManager.default.removeItem(at: file)
      let gone = videoError { _ = try stored.read(0..<1) }
      #expect(gone?.code == .damagedSet && gone?.message.contains(file.path) == true)
    }
  }
}
