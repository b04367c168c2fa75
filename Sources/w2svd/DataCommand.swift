// `w2svd data`: the prepare phase by itself, and what lies in a prepared set.

import ArgumentParser
import Foundation
import Training
import VideoData

struct DataCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "data", abstract: "Prepares videos for training and shows what was prepared.",
    subcommands: [Prepare.self, Inspect.self])

  struct Prepare: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "prepare",
      abstract: "Decodes, crops and splits videos and fits the latent codec, as a run would.")

    @OptionGroup var source: ConfigurationArguments

    @Option(
      help: ArgumentHelp(
        "Folder of the prepared set; one that is up to date is kept.", valueName: "dir"))
    var output: String

    @Argument(
      help: "Videos. Default: data.paths of the configuration, or those in data.folder.")
    var videos: [String] = []

    func run() throws {
      var configuration = try source.read()
      if !videos.isEmpty { configuration.data.paths = videos }
      let prepared = try PreparedSet.prepare(
        from: configuration.clipOrigin, options: configuration.preparationOptions,
        in: URL(filePath: output), say: { complain($0 + "\n") })
      print(PreparedListing(prepared).text)
    }
  }

  struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "inspect",
      abstract: "Lists the videos of a prepared set: sizes, frames, windows, codec.")

    @Argument(help: "A prepared set (<run>/prepared) or a run.")
    var folder: String

    @Flag(help: "Prints one JSON object on the last line. Default: off.")
    var json = false

    func run() throws {
      let inRun = RunFolder(folder + "/").prepared
      let isRun = FileManager.default.fileExists(
        atPath: inRun.appending(path: "prepared.json").path)
      let listing = PreparedListing(
        try PreparedSet(loading: isRun ? inRun : URL(filePath: folder)))
      if json { try printJSON(listing) } else { print(listing.text) }
    }
  }
}

/// What there is to say of a prepared set.
private struct PreparedListing: Encodable {
  struct Source: Encodable {
    let name: String
    let frames: Int
    let height: Int
    let width: Int
    let framesPerSecond: Double
    let trainingWindows: Int
    let heldOutWindows: Int
    let codecPsnr: Double
  }
  let sources: [Source]
  let skipped: [String]
  let clipFrames: Int
  let cropSize: Int
  let latentShape: [Int]
  let codecPsnr: Double
  let isProcedural: Bool

  init(_ prepared: PreparedSet) {
    sources = prepared.sources.map {
      Source(
        name: $0.name, frames: $0.frames.frameCount, height: $0.frames.height,
        width: $0.frames.width, framesPerSecond: $0.framesPerSecond,
        trainingWindows: $0.windows.trainStarts.count,
        heldOutWindows: $0.windows.heldOutStarts.count, codecPsnr: $0.codecPSNR)
    }
    skipped = prepared.skipped
    clipFrames = prepared.options.clipFrameCount
    cropSize = prepared.options.cropSize
    latentShape = prepared.latentShape
    codecPsnr = prepared.codecPSNR
    isProcedural = prepared.isProcedural
  }

  var text: String {
    let decibels = { (value: Double) in String(format: "%.1f dB", value) }
    var lines = sources.map {
      "\($0.name): \($0.frames) frames of \($0.width)×\($0.height) at "
        + "\(String(format: "%.4g", $0.framesPerSecond)) per second, \($0.trainingWindows) training "
        + "and \($0.heldOutWindows) held-out windows, codec \(decibels($0.codecPsnr))"
    }
    lines += skipped.map { "skipped: \($0)" }
    lines.append(
      "\(sources.count) \(isProcedural ? "procedural faces" : "videos"); clips of \(clipFrames) frames "
        + "at \(cropSize)×\(cropSize), latents \(latentShape), codec \(decibels(codecPsnr)) on "
        + "held-out clips")
    return lines.joined(separator: "\n")
  }
}
