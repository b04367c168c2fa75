import Foundation
import TestSupport
import Testing

@testable import VideoData

@Suite struct VideoReaderTests {
  let reader = VideoReader()

  @Test(arguments: [1, 17, 30])
  func `exactly the frames that were encoded come back`(frameCount: Int) throws {
    try withTemporaryFolder { folder in
      let file = try TestVideos.make("in.mp4", in: folder, frameCount: frameCount)
      let properties = try reader.probe(file)
      #expect(
        properties
          == VideoProperties(
            width: 96, height: 80, framesPerSecond: 25, declaredFrameCount: frameCount))
      let video = try reader.decode(file, height: 40, width: 48)
      #expect((video.frameCount, video.height, video.width) == (frameCount, 40, 48))
    }
  }

  @Test func `decoding twice gives the same bytes`() throws {
    try withTemporaryFolder { folder in
      let file = try TestVideos.make("in.mp4", in: folder)
      let first = try reader.decode(file, height: 40, width: 48)
      #expect(try reader.decode(file, height: 40, width: 48) == first)
      #expect(first.frames(0..<1) != first.frames(29..<30))
    }
  }

  @Test func `a lossless file gives back its own pixels`() throws {
    try withTemporaryFolder { folder in
      let options = ["-c:v", "ffv1", "-pix_fmt", "bgr0"]
      let file = try TestVideos.make("in.mkv", in: folder, frameCount: 3, options: options)
      let raw = folder.appending(path: "raw")
      try TestVideos.ffmpeg(
        ["-i", file.path, "-f", "rawvideo", "-pix_fmt", "rgb24", raw.path])
      #expect(
        try reader.decode(file, height: 80, width: 96).bytes == [UInt8](Data(contentsOf: raw)))
    }
  }

  @Test func `variable frame times neither drop nor double a frame`() throws {
    try withTemporaryFolder { folder in
      let options = [
        "-vf", "setpts='(N+N*N/10)/25/TB'", "-fps_mode", "vfr", "-c:v", "libx264",
      ]
      let file = try TestVideos.make("in.mp4", in: folder, frameCount: 20, options: options)
      #expect(try reader.decode(file, height: 40, width: 48).frameCount == 20)
    }
  }

  @Test func `no more frames are read than asked for`() throws {
    try withTemporaryFolder { folder in
      let file = try TestVideos.make("in.mp4", in: folder)
      let whole = try reader.decode(file, height: 40, width: 48)
      let part = try reader.decode(file, height: 40, width: 48, maximumFrameCount: 9)
      #expect(part == whole.frames(0..<9))
    }
  }

  @Test func `a name with spaces, quotes and percent signs is just a name`() throws {
    try withTemporaryFolder { folder in
      let file = try TestVideos.make("plain.mp4", in: folder, frameCount: 5)
      let odd = folder.appending(path: "-my 'own' 100%d; $(clip):1.mp4")
      try FileManager.default.moveItem(at: file, to: odd)
      #expect(try reader.decode(odd, height: 40, width: 48).frameCount == 5)
    }
  }

  // MARK: Bad files

  @Test func `a missing file and a folder are told apart from videos`() throws {
    try withTemporaryFolder { folder in
      let missing = folder.appending(path: "nowhere.mp4")
      let error = videoError { _ = try reader.probe(missing) }
      #expect(error?.code == .missingFile)
      #expect(error?.message.contains("nowhere.mp4") == true)
      #expect(videoError { _ = try reader.probe(folder) }?.code == .missingFile)
    }
  }

  @Test func `an empty file, a text file and sound alone are no videos`() throws {
    try withTemporaryFolder { folder in
      let empty = folder.appending(path: "empty.mp4")
      try Data().write(to: empty)
      let text = folder.appending(path: "text.mp4")
      try Data("these are words, not pictures\n".utf8).write(to: text)
      let sound = folder.appending(path: "sound.m4a")
      try TestVideos.ffmpeg(["-f", "lavfi", "-i", "sine=duration=1", sound.path])
      for file in [empty, text, sound] {
        let error = videoError { _ = try reader.decode(file, height: 8, width: 8) }
        #expect(error?.code == .notVideo, "\(file.lastPathComponent): \(String(describing: error))")
        #expect(error?.message.contains(file.lastPathComponent) == true)
      }
    }
  }

  @Test(arguments: [0.3, 0.6, 0.9])
  func `a truncated file is an error, whether its index lies in front or at the end`(
    share: Double
  ) throws {
    try withTemporaryFolder { folder in
      let base = ["-c:v", "libx264", "-g", "10", "-pix_fmt", "yuv420p"]
      for (name, options) in [
        ("front.mp4", base + ["-movflags", "+faststart"]), ("end.mp4", base),
        ("matroska.mkv", base),
      ] {
        let whole = try TestVideos.make(name, in: folder, frameCount: 60, options: options)
        let content = try Data(contentsOf: whole)
        let torn = folder.appending(path: "torn-\(name)")
        try content.prefix(Int(Double(content.count) * share)).write(to: torn)
        let error = videoError { _ = try reader.decode(torn, height: 40, width: 48) }
        #expect(
          error?.code == .broken || error?.code == .notVideo,
          "\(name) cut to \(share): \(String(describing: error))")
      }
    }
  }

  @Test func `flipped bits inside the stream are an error`() throws {
    try withTemporaryFolder { folder in
      let file = try TestVideos.make("in.mp4", in: folder, frameCount: 60)
      var content = [UInt8](try Data(contentsOf: file))
      for index in stride(from: content.count / 4, to: content.count / 2, by: 50) {
        content[index] ^= 0x55
      }
      try Data(content).write(to: file)
      let error = videoError { _ = try reader.decode(file, height: 40, width: 48) }
      #expect(error?.code == .broken)
    }
  }

  @Test func `a decoder past its deadline is stopped`() throws {
    let start = ContinuousClock.now
    let error = videoError {
      _ = try MediaTool.run(
        "ffmpeg",
        [
          "-nostdin", "-loglevel", "error", "-re", "-f", "lavfi", "-i", "testsrc2", "-f", "null",
          "-",
        ],
        deadline: .milliseconds(300))
    }
    #expect(error?.code == .toolFailed)
    #expect(error?.message.contains("did not finish") == true)
    #expect(ContinuousClock.now - start < .seconds(20))
  }

  @Test func `a decoder is stopped soon after somebody asks for it`() throws {
    let start = ContinuousClock.now
    var questions = 0
    let error = videoError {
      _ = try MediaTool.run(
        "ffmpeg",
        [
          "-nostdin", "-loglevel", "error", "-re", "-f", "lavfi", "-i", "testsrc2", "-f", "null",
          "-",
        ],
        deadline: .seconds(60),
        isStopRequested: {
          questions += 1
          return questions == 3
        })
    }
    #expect(error?.code == .stopped)
    #expect(questions == 3)
    #expect(ContinuousClock.now - start < .seconds(20))
  }

  @Test func `a tool that fails when a stop was asked for is no failure of its file`() throws {
    try withTemporaryFolder { folder in
      let text = folder.appending(path: "text.mp4")
      try Data("these are words, not pictures\n".utf8).write(to: text)
      #expect(videoError { _ = try reader.probe(text) }?.code == .notVideo)
      #expect(
        videoError { _ = try reader.probe(text, isStopRequested: { true }) }?.code == .stopped)
    }
  }

  @Test func `a missing program names the script that installs it`() {
    let error = videoError {
      _ = try MediaTool.run("ffmpeg-not-installed", [], deadline: .seconds(1))
    }
    #expect(error?.code == .toolMissing)
    #expect(error?.message.contains("launch/bootstrap") == true)
  }
}
