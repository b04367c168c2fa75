// Videos made by ffmpeg's own sources at test time, and other small inputs.

import Basics
import Foundation

@testable import VideoData

enum TestVideos {
  /// A moving test picture of `frameCount` frames at 25 per second.
  static func make(
    _ name: String, in folder: URL, frameCount: Int = 30, width: Int = 96, height: Int = 80,
    options: [String] = ["-c:v", "libx264", "-pix_fmt", "yuv420p"]
  ) throws -> URL {
    let file = folder.appending(path: name)
    try ffmpeg(
      ["-f", "lavfi", "-i", "testsrc2=size=\(width)x\(height):rate=25", "-frames:v"]
        + [String(frameCount)] + options + [file.path])
    return file
  }

  static func ffmpeg(_ arguments: [String]) throws {
    let output = try MediaTool.run(
      "ffmpeg", ["-nostdin", "-y", "-loglevel", "error"] + arguments, deadline: .seconds(30))
    guard output.status == 0 else { throw VideoError(.toolFailed, output.standardError) }
  }

  /// Bytes drawn at random.
  static func noise(frameCount: Int, height: Int, width: Int, sample: Int = 0) -> Video {
    let stream = RandomStream(seed: 1, purpose: .tests, sample: sample)
    return Video(
      frameCount: frameCount, height: height, width: width,
      bytes: (0..<frameCount * height * width * 3).map { UInt8(stream.integer(below: 256, at: $0)) }
    )
  }
}

/// The `VideoError` that `body` throws, or nil.
func videoError(_ body: () throws -> Void) -> VideoError? {
  do {
    try body()
    return nil
  } catch {
    return error as? VideoError
  }
}
