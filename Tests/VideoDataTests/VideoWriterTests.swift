import Foundation
import TestSupport
import Testing

@testable import VideoData

@Suite struct VideoWriterTests {
  let face = ProceduralFace(seed: 3, person: 1).draw(frameCount: 9, height: 32, width: 40)

  @Test func `an mp4 has every frame, the upscaled size and close to the same picture`() throws {
    try withTemporaryFolder { folder in
      let file = folder.appending(path: "deeper/out.mp4")
      try VideoWriter().writeMP4(face, to: file, framesPerSecond: 12.5, upscale: 4)
      let properties = try VideoReader().probe(file)
      #expect(
        properties
          == VideoProperties(width: 160, height: 128, framesPerSecond: 12.5, declaredFrameCount: 9))
      let back = try VideoReader().decode(file, height: 32, width: 40)
      // Upscaling hides chroma subsampling; what is left is quantization at rate factor 12.
      #expect(peakSignalToNoise(back, face) > 30)
      let siblings = try FileManager.default.contentsOfDirectory(atPath: folder.path + "/deeper")
      #expect(siblings == ["out.mp4"])
    }
  }

  @Test func `equal frames give equal files, odd sizes too`() throws {
    try withTemporaryFolder { folder in
      let odd = face.cropped(top: 0, left: 0, height: 31, width: 39)
      let files = ["a.mp4", "b.mp4"].map { folder.appending(path: $0) }
      for file in files { try VideoWriter().writeMP4(odd, to: file) }
      #expect(try Data(contentsOf: files[0]) == Data(contentsOf: files[1]))
      let properties = try VideoReader().probe(files[0])
      #expect((properties.height, properties.width) == (32, 40))
    }
  }

  @Test func `a PNG gives back its pixels`() throws {
    try withTemporaryFolder { folder in
      let file = folder.appending(path: "100%d.png")
      let image = face.frames(4..<5)
      try VideoWriter().writePNG(image, to: file)
      let plain = folder.appending(path: "plain.png")
      try FileManager.default.copyItem(at: file, to: plain)
      #expect(try VideoReader().decode(plain, height: 32, width: 40) == image)
      try VideoWriter().writePNG(image, to: plain, upscale: 3)
      let large = try VideoReader().decode(plain, height: 96, width: 120)
      for y in 0..<96 {
        for x in 0..<120 {
          let (big, small) = (
            large.offset(frame: 0, y: y, x: x), image.offset(frame: 0, y: y / 3, x: x / 3)
          )
          guard large.bytes[big..<big + 3] == image.bytes[small..<small + 3] else {
            Issue.record("pixel (\(y), \(x)) is not the one it was made of")
            return
          }
        }
      }
    }
  }

  @Test func `a place that can't be written is an error with its path`() {
    let file = URL(filePath: "/proc/no-such-place/out.mp4")
    let error = videoError { try VideoWriter().writeMP4(face, to: file) }
    #expect(error?.code == .unwritable)
    #expect(error?.message.contains("/proc/no-such-place") == true)
  }
}
