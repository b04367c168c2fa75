// Encoding through ffmpeg: mp4 for people to watch, PNG for images and contact sheets.
//
// A file appears under its name only when it is whole (written aside, then renamed). Equal frames
// give equal bytes: one thread and ffmpeg's bit-exact flags.

import Basics
package import Foundation

package struct VideoWriter: Sendable {
  /// How long one ffmpeg may run. Default 120 s.
  package var deadline: Duration

  package init(deadline: Duration = .seconds(120)) { self.deadline = deadline }

  /// H.264 in mp4, yuv420p. Odd sizes are padded by a column or row to even ones.
  /// - Parameters:
  ///   - upscale: each pixel becomes upscale×upscale pixels, so that 64×64 can be watched.
  ///   - constantRateFactor: x264's quality, lower is better; 12 is close to lossless.
  /// - Throws: `toolMissing`, `toolFailed`, `unwritable`.
  package func writeMP4(
    _ video: Video, to file: URL, framesPerSecond: Double = 25, upscale: Int = 1,
    constantRateFactor: Int = 12
  ) throws {
    require(upscale >= 1 && video.frameCount > 0, "no frames, or upscale \(upscale) < 1")
    let filter =
      "scale=iw*\(upscale):ih*\(upscale):flags=neighbor+accurate_rnd+full_chroma_int,"
      + "pad=ceil(iw/2)*2:ceil(ih/2)*2,format=yuv420p"
    try encode(
      video, framesPerSecond: framesPerSecond,
      options: [
        "-vf", filter, "-c:v", "libx264", "-preset", "medium", "-crf", String(constantRateFactor),
        "-flags", "+bitexact", "-fflags", "+bitexact", "-map_metadata", "-1", "-movflags",
        "+faststart", "-f", "mp4",
      ], to: file)
  }

  /// One frame as PNG, each pixel upscale×upscale large.
  /// - Throws: `toolMissing`, `toolFailed`, `unwritable`.
  package func writePNG(_ image: Video, to file: URL, upscale: Int = 1) throws {
    require(
      upscale >= 1 && image.frameCount == 1, "an image has 1 frame, not \(image.frameCount)")
    try encode(
      image, framesPerSecond: 1,
      options: [
        "-vf", "scale=iw*\(upscale):ih*\(upscale):flags=neighbor", "-pix_fmt", "rgb24", "-c:v",
        "png", "-flags", "+bitexact", "-fflags", "+bitexact", "-f", "image2pipe",
      ], to: file)
  }

  private func encode(
    _ video: Video, framesPerSecond: Double, options: [String], to file: URL
  ) throws {
    let folder = file.deletingLastPathComponent()
    do {
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    } catch {
      throw VideoError(
        .unwritable, "cannot make the folder \(folder.path); \(VideoError.writingAdvice)",
        cause: error)
    }
    let scratch = try ScratchFolder(in: folder)
    let whole = scratch.file("encoded")
    let output = try MediaTool.run(
      "ffmpeg",
      [
        "-hide_banner", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24",
        "-video_size", "\(video.width)x\(video.height)", "-framerate", String(framesPerSecond),
        "-i", "pipe:0", "-threads", "1",
      ] + options + ["file:\(whole.path)"], input: video.bytes, deadline: deadline)
    guard output.status == 0 else {
      let isDiskFull = output.standardError.contains("No space left on device")
      throw VideoError(
        isDiskFull ? .unwritable : .toolFailed,
        "ffmpeg could not write \(file.path): \(output.firstComplaint); "
          + VideoError.writingAdvice)
    }
    do {
      try Data(contentsOf: whole).write(to: file, options: .atomic)
    } catch {
      throw VideoError(
        .unwritable, "cannot write \(file.path); \(VideoError.writingAdvice)", cause: error)
    }
  }
}
