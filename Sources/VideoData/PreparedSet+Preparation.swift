// The prepare phase: decode, scale, keep the busiest window, split, fit the codec, store.

import Basics
package import Foundation

/// Where the videos of a run come from.
package enum ClipOrigin: Sendable {
  /// Files that the user named: any bad one is an error, all bad ones are told at once.
  case files([URL])
  /// The videos found in a folder: bad ones are skipped with a word, unless all are; where there is
  /// none, people are drawn by `ProceduralFace`.
  case folder(URL)
  /// Procedural people.
  case procedural
}

extension PreparedSet {
  /// The set in `folder`, made anew where inputs or options have changed.
  /// - Parameters:
  ///   - wanted: the data that a run goes on with. A set in `folder` that has them is used even when
  ///     the videos are gone; others are refused before anything is replaced.
  ///   - isStopRequested: asked before each file and while it is decoded; true stops, and leaves an
  ///     older set in `folder` as it is.
  ///   - say: gets one line for each thing that a user should know.
  /// - Precondition: `options` have no problems.
  /// - Throws: `VideoError`; of several bad files one error that has a line for each; `stopped`;
  ///   `otherData`.
  package static func prepare(
    from origin: ClipOrigin, options: PreparationOptions = PreparationOptions(),
    in folder: URL, reader: VideoReader = VideoReader(),
    wanted: DataFingerprint? = nil,
    isStopRequested: () -> Bool = { false }, say: (String) -> Void = { _ in }
  ) throws -> PreparedSet {
    let problems = options.problems()
    require(problems.isEmpty, "options with problems: \(problems.joined(separator: "; "))")
    let inputs = try Inputs(origin: origin)
    let stored = try? listing(in: folder)
    let fingerprint = try inputs.fingerprint(with: options)
    if let wanted, wanted.inputs != fingerprint {
      guard inputs.areGone, stored?.fingerprint == wanted.inputs else {
        throw VideoError(.otherData, "the videos are not those")
      }
      let prepared = try PreparedSet(loading: folder)
      try wanted.requireCodec(of: prepared)
      say("the videos are gone: going on with the prepared set in \(folder.path)")
      return prepared
    }
    if stored?.fingerprint == fingerprint {
      do {
        let prepared = try PreparedSet(loading: folder)
        try wanted?.requireCodec(of: prepared)
        prepared.skipped.forEach { say("skipped: \($0)") }
        say("prepared set in \(folder.path) is up to date")
        return prepared
      } catch let error as VideoError where error.code == .damagedSet {
        say("\(error.message): preparing again")
      }
    }
    let scratch = try ScratchFolder(in: folder.deletingLastPathComponent())
    let prepared = try make(
      inputs: inputs, options: options, fingerprint: fingerprint, reader: reader,
      in: scratch, isStopRequested: isStopRequested, say: say)
    try wanted?.requireCodec(of: prepared)
    try prepared.finish(scratch, as: folder)
    // From its place, and as every later start finds it.
    return try PreparedSet(loading: folder)
  }

  // MARK: Inputs

  /// The files of an origin; none means procedural people.
  private struct Inputs {
    let files: [URL]
    /// Whether a bad file is left out instead of ending the run.
    let skipsBadFiles: Bool

    init(origin: ClipOrigin) throws {
      switch origin {
      case .files(let files):
        require(!files.isEmpty, "an empty list of files; use .procedural")
        self.files = files
        skipsBadFiles = false
      case .folder(let folder):
        let found =
          (try? FileManager.default.contentsOfDirectory(
            at: folder, includingPropertiesForKeys: nil)) ?? []
        let kinds: Set = ["mp4", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m4v"]
        files = found.filter { kinds.contains($0.pathExtension.lowercased()) }
          .sorted { $0.lastPathComponent < $1.lastPathComponent }
        skipsBadFiles = true
      case .procedural:
        files = []
        skipsBadFiles = true
      }
    }

    /// Whether videos that a set was made of cannot be read any more.
    var areGone: Bool {
      files.contains { !FileManager.default.isReadableFile(atPath: $0.path) }
        || (files.isEmpty && skipsBadFiles)
    }

    /// Of format, options, file names and contents; an unreadable file counts as empty.
    func fingerprint(with options: PreparationOptions) throws -> String {
      var fingerprint = Fingerprint()
      fingerprint.add("format \(PreparedSet.formatVersion)")
      let encoder = JSONEncoder()
      encoder.outputFormatting = .sortedKeys
      fingerprint.add(String(decoding: try encoder.encode(options), as: UTF8.self))
      for file in files {
        fingerprint.add(file.lastPathComponent)
        let content = (try? Data(contentsOf: file)) ?? Data()
        fingerprint.add(Fingerprint(of: [UInt8](content)).text)
      }
      return fingerprint.text
    }
  }

  // MARK: Making

  /// A source before the codec is known; its frames lie in the scratch folder already.
  private struct Footage {
    let name: String
    let frames: StoredFrames
    let framesPerSecond: Double
  }

  private static func make(
    inputs: Inputs, options: PreparationOptions, fingerprint: String, reader: VideoReader,
    in scratch: ScratchFolder, isStopRequested: () -> Bool, say: (String) -> Void
  ) throws -> PreparedSet {
    func stopIfRequested() throws {
      if isStopRequested() {
        throw VideoError(.stopped, "the prepare phase was stopped on request")
      }
    }
    var footage: [Footage] = []
    var failures: [VideoError] = []
    for file in inputs.files {
      try stopIfRequested()
      do {
        let (video, framesPerSecond) = try read(
          file, options: options, reader: reader, isStopRequested: isStopRequested)
        footage.append(
          Footage(
            name: file.deletingPathExtension().lastPathComponent,
            frames: try StoredFrames(
              writing: video, to: framesFile(footage.count, in: scratch.url)),
            framesPerSecond: framesPerSecond))
      } catch let error as VideoError {
        // Only a fault of the file itself may leave it out: the set is kept for good.
        if [.toolMissing, .toolFailed, .unwritable, .stopped].contains(error.code) { throw error }
        failures.append(error)
      }
    }
    // A signal may reach ffmpeg before it reaches us: then a good file looks broken.
    if !failures.isEmpty { try stopIfRequested() }
    if !failures.isEmpty && (!inputs.skipsBadFiles || footage.isEmpty) {
      throw failures.count == 1
        ? failures[0]
        : VideoError(
          .severalFiles,
          "\(failures.count) of \(inputs.files.count) videos cannot be used:\n"
            + failures.map { "  \($0.message)" }.joined(separator: "\n"))
    }
    failures.forEach { say("skipped: \($0.message)") }
    let isProcedural = inputs.files.isEmpty
    if isProcedural {
      say("no videos found: learning from \(options.proceduralPeople) procedurally drawn people")
      footage = try people(options: options, in: scratch)
    }
    return try assemble(
      footage, options: options, isProcedural: isProcedural, fingerprint: fingerprint,
      skipped: failures.map(\.message))
  }

  private static func read(
    _ file: URL, options: PreparationOptions, reader: VideoReader, isStopRequested: () -> Bool
  ) throws -> (video: Video, framesPerSecond: Double) {
    let properties = try reader.probe(file, isStopRequested: isStopRequested)
    let size = options.scaledSize(height: properties.height, width: properties.width)
    let video = try reader.decode(
      file, height: size.height, width: size.width, maximumFrameCount: options.maximumFrameCount,
      isStopRequested: isStopRequested)
    guard video.frameCount >= options.clipFrameCount else {
      throw VideoError(
        .tooShort,
        "\(file.path) has \(video.frameCount) frames, a clip needs \(options.clipFrameCount); "
          + "give a longer video")
    }
    return (
      MotionWindow.crop(video, maximumLongSide: options.maximumLongSide),
      properties.framesPerSecond > 0 ? properties.framesPerSecond : 25
    )
  }

  private static func people(
    options: PreparationOptions, in scratch: ScratchFolder
  ) throws -> [Footage] {
    try (0..<options.proceduralPeople).map { person in
      let video = ProceduralFace(seed: options.proceduralSeed, person: person).draw(
        frameCount: options.proceduralFrames, height: options.shortSide,
        width: options.maximumLongSide)
      return Footage(
        name: "person-\(person)",
        frames: try StoredFrames(writing: video, to: framesFile(person, in: scratch.url)),
        framesPerSecond: ProceduralFace.framesPerSecond)
    }
  }

  private static func assemble(
    _ footage: [Footage], options: PreparationOptions, isProcedural: Bool, fingerprint: String,
    skipped: [String]
  ) throws -> PreparedSet {
    let windows = footage.map {
      ClipWindows(
        frameCount: $0.frames.frameCount, clipFrameCount: options.clipFrameCount,
        heldOutShare: options.heldOutShare)
    }
    let codec = try LinearCausalCodec(
      fittedOn: zip(footage, windows).map { .init($0.frames, frameCount: $1.trainFrameCount) },
      cropSize: options.cropSize, channelCount: options.latentChannels, mirrors: options.mirrors,
      reverses: options.reverses)
    let judged = try zip(footage, windows).map {
      try judgedClips(of: $0.frames, windows: $1, cropSize: options.cropSize)
    }
    let sources = footage.indices.map { index in
      Source(
        name: footage[index].name, frames: footage[index].frames,
        framesPerSecond: footage[index].framesPerSecond, windows: windows[index],
        codecPSNR: codec.reconstructionPSNR(of: judged[index]) ?? 0)
    }
    return PreparedSet(
      sources: sources, codec: codec, options: options,
      codecPSNR: codec.reconstructionPSNR(of: judged.flatMap(\.self)) ?? 0,
      isProcedural: isProcedural, fingerprint: fingerprint, skipped: skipped)
  }

  /// Clips without overlap from the held-out tail, or from the whole video where there is none.
  private static func judgedClips(
    of frames: StoredFrames, windows: ClipWindows, cropSize: Int
  ) throws -> [Video] {
    let starts = windows.heldOutStarts.isEmpty ? windows.trainStarts : windows.heldOutStarts
    let places = stride(
      from: starts.lowerBound, to: starts.upperBound, by: windows.clipFrameCount)
    return try places.map {
      try frames.read($0..<$0 + windows.clipFrameCount).cropped(
        top: (frames.height - cropSize) / 2, left: (frames.width - cropSize) / 2,
        height: cropSize, width: cropSize)
    }
  }
}
