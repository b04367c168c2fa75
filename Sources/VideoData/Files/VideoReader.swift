// Decoding through ffmpeg: what a file is, and its frames as RGB bytes at a wanted size.
//
// Goals: 1 the same bytes every time (one thread, pinned scaler flags, no frame dropped or
// doubled), 2 one clear word for every kind of bad file, 3 speed. A file whose decoding draws any
// complaint at ffmpeg's error level counts as broken: half a video would be learned silently.
// The pixel aspect ratio is ignored: pixels are taken as square.

package import Foundation

/// What a video file holds, as displayed (after rotation).
package struct VideoProperties: Hashable, Sendable {
  package let width: Int
  package let height: Int
  /// Average frames per second; 0 where the file does not say.
  package let framesPerSecond: Double
  /// The number that the container claims, if it does; the decoder may find one or two fewer.
  package let declaredFrameCount: Int?
}

package struct VideoReader: Sendable {
  /// How long one ffmpeg may run. Default 120 s.
  package var deadline: Duration

  package init(deadline: Duration = .seconds(120)) { self.deadline = deadline }

  /// - Throws: `missingFile`, `notVideo`, `toolMissing`, `toolFailed`, `stopped`.
  package func probe(
    _ file: URL, isStopRequested: () -> Bool = { false }
  ) throws -> VideoProperties {
    try checkReadable(file)
    let output = try MediaTool.run(
      "ffprobe",
      [
        "-v", "error", "-select_streams", "v", "-show_streams", "-of", "json", "-i",
        "file:\(file.path)",
      ], deadline: deadline, isStopRequested: isStopRequested)
    guard output.status == 0 else {
      throw VideoError(
        .notVideo,
        "\(file.path) is not a video that ffmpeg reads, or its end is missing: "
          + "\(output.firstComplaint); give another file or copy it again")
    }
    let listing = try? JSONDecoder().decode(
      StreamListing.self, from: Data(output.standardOutput))
    let pictures = listing?.streams.filter { $0.disposition?["attached_pic"] != 1 } ?? []
    guard let stream = pictures.first, let properties = stream.properties else {
      throw VideoError(
        .notVideo, "\(file.path) has no video stream (sound only?); give a file with pictures")
    }
    return properties
  }

  /// All frames, or the first `maximumFrameCount`, at `height`×`width`.
  /// - Throws: as `probe`, and `broken`.
  package func decode(
    _ file: URL, height: Int, width: Int, maximumFrameCount: Int? = nil,
    isStopRequested: () -> Bool = { false }
  ) throws -> Video {
    let properties = try probe(file, isStopRequested: isStopRequested)
    let limit = maximumFrameCount.map { ["-frames:v", String($0)] } ?? []
    let output = try MediaTool.run(
      "ffmpeg",
      [
        "-nostdin", "-hide_banner", "-loglevel", "error", "-threads", "1", "-i",
        "file:\(file.path)",
      ]
        + ["-map", "0:V:0", "-fps_mode", "passthrough"] + limit
        + [
          "-vf",
          "scale=\(width):\(height):flags=bicubic+accurate_rnd+full_chroma_int,format=rgb24",
          "-threads", "1", "-f", "rawvideo", "pipe:1",
        ], deadline: deadline, isStopRequested: isStopRequested)
    if output.isUsageError {
      throw VideoError(
        .toolFailed, "ffmpeg is older than 5.1 (\(output.firstComplaint)); install a newer one")
    }
    let frameBytes = height * width * 3
    let frameCount = output.standardOutput.count / frameBytes
    let advice =
      "copy it again, or keep what is good: ffmpeg -err_detect ignore_err -i in.mp4 -c:v libx264 out.mp4"
    guard output.status == 0, output.standardError.allSatisfy(\.isWhitespace) else {
      throw VideoError(
        .broken,
        "\(file.path) does not decode cleanly (\(frameCount) frames read): "
          + "\(output.firstComplaint); \(advice)")
    }
    let expected = min(properties.declaredFrameCount ?? 0, maximumFrameCount ?? .max)
    guard frameCount > 0, frameCount * 10 >= expected * 9,
      output.standardOutput.count == frameCount * frameBytes
    else {
      throw VideoError(
        .broken, "\(file.path) says \(expected) frames but only \(frameCount) decode; \(advice)")
    }
    return Video(
      frameCount: frameCount, height: height, width: width, bytes: output.standardOutput)
  }

  private func checkReadable(_ file: URL) throws {
    guard
      let attributes = try? FileManager.default.attributesOfItem(
        atPath: file.resolvingSymlinksInPath().path)
    else {
      throw VideoError(.missingFile, "there is no file \(file.path); check the path")
    }
    guard attributes[.type] as? FileAttributeType != .typeDirectory else {
      throw VideoError(.missingFile, "\(file.path) is a folder; name the video files in it")
    }
    guard FileManager.default.isReadableFile(atPath: file.path) else {
      throw VideoError(.missingFile, "\(file.path) may not be read; check its permissions")
    }
  }
}

/// The part of ffprobe's JSON that is read here.
private struct StreamListing: Decodable {
  struct Stream: Decodable {
    struct SideData: Decodable { let rotation: Double? }
    let width: Int?
    let height: Int?
    let avg_frame_rate: String?
    let nb_frames: String?
    let disposition: [String: Int]?
    let side_data_list: [SideData]?

    var properties: VideoProperties? {
      guard let width, let height, width > 0, height > 0 else { return nil }
      let rate = (avg_frame_rate ?? "").split(separator: "/").compactMap { Double($0) }
      let quarterTurns = (side_data_list ?? []).compactMap(\.rotation).first.map { $0 / 90 } ?? 0
      let isTurned = Int(quarterTurns.rounded()) % 2 != 0
      return VideoProperties(
        width: isTurned ? height : width, height: isTurned ? width : height,
        framesPerSecond: rate.count == 2 && rate[1] != 0 ? rate[0] / rate[1] : 0,
        declaredFrameCount: nb_frames.flatMap { Int($0) })
    }
  }
  let streams: [Stream]
}
