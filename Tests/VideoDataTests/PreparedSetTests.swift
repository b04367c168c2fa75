import Foundation
import TestSupport
import Testing

@testable import VideoData

@Suite struct PreparedSetTests {
  /// Small and quick: 16×16 crops of 5 frames.
  static let options: PreparationOptions = {
    var options = PreparationOptions()
    options.clipFrameCount = 5
    options.cropSize = 16
    options.shortSide = 20
    options.proceduralPeople = 2
    options.proceduralFrames = 20
    return options
  }()

  func expectEqual(_ a: PreparedSet, _ b: PreparedSet) {
    #expect(a.codec == b.codec)
    #expect(a.options == b.options)
    #expect(a.fingerprint == b.fingerprint)
    #expect(a.codecPSNR == b.codecPSNR)
    #expect(a.isProcedural == b.isProcedural)
    #expect(a.skipped == b.skipped)
    #expect(a.sources.map(\.name) == b.sources.map(\.name))
    for (a, b) in zip(a.sources, b.sources) {
      let count = a.frames.frameCount
      #expect(throws: Never.self) {
        let frames = try (a: a.frames.read(0..<count), b: b.frames.read(0..<count))
        #expect(frames.a == frames.b && b.frames.frameCount == count)
      }
    }
    #expect(a.sources.map(\.windows) == b.sources.map(\.windows))
    #expect(a.sources.map(\.framesPerSecond) == b.sources.map(\.framesPerSecond))
  }

  @Test func `a set of two videos is stored whole, drawn from, and used again`() throws {
    try withTemporaryFolder { folder in
      let files = [
        try TestVideos.make("a.mp4", in: folder, frameCount: 22, width: 128, height: 64),
        try TestVideos.make("b.mp4", in: folder, frameCount: 12, width: 48, height: 64),
      ]
      let place = folder.appending(path: "prepared")
      let made = try PreparedSet.prepare(from: .files(files), options: Self.options, in: place)
      #expect(made.sources.map(\.name) == ["a", "b"])
      #expect(made.sources.map(\.frames.frameCount) == [22, 12])
      #expect(made.sources.map(\.frames.height) == [20, 24])
      #expect(made.sources.map(\.frames.width) == [24, 20])
      #expect(made.latentShape == [16, 2, 4, 4])
      #expect(!made.isProcedural)
      expectEqual(try PreparedSet(loading: place), made)

      let sampler = made.sampler(seed: 1)
      for counter in 0..<20 {
        let sample = sampler.sample(at: counter)
        let plain = try made.clip(
          ClipSample(
            source: sample.source, start: sample.start, top: sample.top, left: sample.left))
        var turned = sample.isMirrored ? plain.mirrored : plain
        turned = sample.isReversed ? turned.reversed : turned
        #expect(try made.clip(sample) == turned)
        #expect(made.codec.encode(plain).shape == made.latentShape)
      }

      var words: [String] = []
      let again = try PreparedSet.prepare(
        from: .files(files), options: Self.options, in: place, say: { words.append($0) })
      expectEqual(again, made)
      #expect(words.count == 1 && words[0].contains("up to date"))
      let siblings = try FileManager.default.contentsOfDirectory(atPath: folder.path)
      #expect(Set(siblings) == ["a.mp4", "b.mp4", "prepared"])
    }
  }

  @Test func `changed options, changed files and damage lead to a new set`() throws {
    try withTemporaryFolder { folder in
      let file = try TestVideos.make("a.mp4", in: folder, frameCount: 22)
      let place = folder.appending(path: "prepared")
      func prepare(_ options: PreparationOptions = Self.options) throws -> (PreparedSet, [String]) {
        var words: [String] = []
        let made = try PreparedSet.prepare(
          from: .files([file]), options: options, in: place, say: { words.append($0) })
        return (made, words)
      }
      let first = try prepare().0
      var other = Self.options
      other.heldOutShare = 0.4
      let second = try prepare(other)
      #expect(second.0.fingerprint != first.fingerprint && second.1.isEmpty)
      #expect(second.0.sources[0].windows != first.sources[0].windows)

      _ = try TestVideos.make("a.mp4", in: folder, frameCount: 21)
      let third = try prepare(other)
      #expect(third.0.sources[0].frames.frameCount == 21)

      let stored = place.appending(path: "source-0.safetensors")
      var content = [UInt8](try Data(contentsOf: stored))
      content[content.count - 5] ^= 1
      try Data(content).write(to: stored)
      #expect(videoError { _ = try PreparedSet(loading: place) }?.code == .damagedSet)
      let fourth = try prepare(other)
      #expect(fourth.1.count == 1 && fourth.1[0].contains("damaged"))
      expectEqual(fourth.0, third.0)

      try Data(content.prefix(content.count / 2)).write(to: stored)
      #expect(videoError { _ = try PreparedSet(loading: place) }?.code == .damagedSet)
      try Data("{".utf8).write(to: place.appending(path: "prepared.json"))
      #expect(videoError { _ = try PreparedSet(loading: place) }?.code == .damagedSet)
      #expect(
        videoError { _ = try PreparedSet(loading: folder.appending(path: "none")) }?.code
          == .missingFile)
    }
  }

  @Test func `a set of other inputs or of another codec than wanted replaces nothing`() throws {
    try withTemporaryFolder { folder in
      let file = try TestVideos.make("a.mp4", in: folder, frameCount: 22)
      let place = folder.appending(path: "prepared")
      let made = try PreparedSet.prepare(from: .files([file]), options: Self.options, in: place)
      func prepare(_ wanted: DataFingerprint) throws -> PreparedSet {
        try PreparedSet.prepare(
          from: .files([file]), options: Self.options, in: place, wanted: wanted)
      }
      expectEqual(try prepare(made.dataFingerprint), made)
      // Checkpoints of earlier versions do not name the codec.
      expectEqual(try prepare(DataFingerprint(inputs: made.fingerprint, codec: nil)), made)
      let turned = DataFingerprint(inputs: made.fingerprint, codec: "0")
      #expect(videoError { _ = try prepare(turned) }?.code == .otherData)
      try Data("{".utf8).write(to: place.appending(path: "prepared.json"))
      #expect(videoError { _ = try prepare(turned) }?.code == .otherData)
      #expect(videoError { _ = try PreparedSet(loading: place) }?.code == .damagedSet)
      expectEqual(try prepare(made.dataFingerprint), made)

      _ = try TestVideos.make("a.mp4", in: folder, frameCount: 21)
      #expect(videoError { _ = try prepare(made.dataFingerprint) }?.code == .otherData)
      expectEqual(try PreparedSet(loading: place), made)
      // Without the videos the set that was made of them serves; another does not.
      try FileManager.default.removeItem(at: file)
      expectEqual(try prepare(made.dataFingerprint), made)
      #expect(videoError { _ = try prepare(turned) }?.code == .otherData)
      let other = DataFingerprint(inputs: "1", codec: nil)
      #expect(videoError { _ = try prepare(other) }?.code == .otherData)
    }
  }

  @Test func `a fingerprint of data reads back, with a codec and without`() {
    for fingerprint in [
      DataFingerprint(inputs: "ab", codec: "cd"), DataFingerprint(inputs: "ab", codec: nil),
    ] {
      #expect(DataFingerprint(fingerprint.text) == fingerprint)
    }
  }

  @Test func `one color in the whole video gives a set that is stored and read`() throws {
    try withTemporaryFolder { folder in
      let file = folder.appending(path: "blank.mp4")
      try TestVideos.ffmpeg([
        "-f", "lavfi", "-i", "color=c=gray:size=48x48:rate=25", "-frames:v", "20", "-pix_fmt",
        "yuv420p", file.path,
      ])
      let place = folder.appending(path: "prepared")
      let made = try PreparedSet.prepare(from: .files([file]), options: Self.options, in: place)
      #expect(made.codecPSNR == largestPeakSignalToNoise)
      expectEqual(try PreparedSet(loading: place), made)
    }
  }

  @Test func `what fails in passing leaves out no video, and bad videos are no reason for faces`()
    throws
  {
    try withTemporaryFolder { folder in
      let clips = folder.appending(path: "clips")
      try FileManager.default.createDirectory(at: clips, withIntermediateDirectories: true)
      _ = try TestVideos.make("good.mp4", in: clips, frameCount: 22)
      let place = folder.appending(path: "prepared")
      let hasty = videoError {
        _ = try PreparedSet.prepare(
          from: .folder(clips), options: Self.options, in: place,
          reader: VideoReader(deadline: .milliseconds(1)))
      }
      #expect(hasty?.code == .toolFailed)

      try FileManager.default.removeItem(at: clips.appending(path: "good.mp4"))
      for name in ["a.mp4", "b.mp4"] {
        try Data("words".utf8).write(to: clips.appending(path: name))
      }
      let bad = videoError {
        _ = try PreparedSet.prepare(from: .folder(clips), options: Self.options, in: place)
      }
      #expect(bad?.code == .severalFiles)
      #expect(bad?.message.contains("a.mp4") == true && bad?.message.contains("b.mp4") == true)
      #expect(!FileManager.default.fileExists(atPath: place.path))
    }
  }

  @Test func `all bad files that a user names are told at once, and nothing is left behind`() throws
  {
    try withTemporaryFolder { folder in
      let good = try TestVideos.make("good.mp4", in: folder, frameCount: 22)
      let short = try TestVideos.make("short.mp4", in: folder, frameCount: 4)
      let missing = folder.appending(path: "missing.mp4")
      let place = folder.appending(path: "prepared")
      let both = videoError {
        _ = try PreparedSet.prepare(
          from: .files([missing, good, short]), options: Self.options, in: place)
      }
      #expect(both?.code == .severalFiles)
      #expect(both?.message.contains("missing.mp4") == true)
      #expect(both?.message.contains("has 4 frames, a clip needs 5") == true)
      #expect(both?.message.contains("good.mp4") == false)
      let one = videoError {
        _ = try PreparedSet.prepare(from: .files([good, short]), options: Self.options, in: place)
      }
      #expect(one?.code == .tooShort)
      #expect(!FileManager.default.fileExists(atPath: place.path))
    }
  }

  @Test func `a folder's bad files are skipped with a word, now and when the set is reused`() throws
  {
    try withTemporaryFolder { folder in
      let clips = folder.appending(path: "clips")
      try FileManager.default.createDirectory(at: clips, withIntermediateDirectories: true)
      _ = try TestVideos.make("good.mp4", in: clips, frameCount: 22)
      try Data("words".utf8).write(to: clips.appending(path: "bad.mp4"))
      try Data("words".utf8).write(to: clips.appending(path: "notes.txt"))
      for _ in 0..<2 {
        var words: [String] = []
        let made = try PreparedSet.prepare(
          from: .folder(clips), options: Self.options, in: folder.appending(path: "prepared"),
          say: { words.append($0) })
        #expect(made.sources.map(\.name) == ["good"])
        #expect(words.count { $0.contains("skipped") && $0.contains("bad.mp4") } == 1)
        #expect(!words.contains { $0.contains("notes.txt") })
      }
    }
  }

  @Test func `without any video, people are drawn and the user is told`() throws {
    try withTemporaryFolder { folder in
      var words: [String] = []
      let made = try PreparedSet.prepare(
        from: .folder(folder.appending(path: "nothing")), options: Self.options,
        in: folder.appending(path: "prepared"), say: { words.append($0) })
      #expect(made.isProcedural)
      #expect(made.sources.map(\.name) == ["person-0", "person-1"])
      #expect(words.contains { $0.contains("procedurally drawn") })
      expectEqual(try PreparedSet(loading: folder.appending(path: "prepared")), made)
    }
  }

  @Test func `every bad option is named`() {
    var options = PreparationOptions()
    #expect(options.problems().isEmpty)
    options.clipFrameCount = 16
    options.cropSize = 66
    options.shortSide = 10
    options.maximumAspect = 0.5
    options.heldOutShare = 1
    options.maximumFrameCount = 3
    options.latentChannels = 0
    options.proceduralPeople = 0
    options.proceduralFrames = 2
    let names = options.problems().map { String($0.prefix { $0 != ":" }) }
    #expect(
      names == [
        "clipFrameCount", "cropSize", "shortSide", "maximumAspect", "heldOutShare",
        "maximumFrameCount", "latentChannels", "proceduralPeople", "proceduralFrames",
      ])
  }

  // Before the first file and, at the latest, before the second.
  @Test(arguments: 1...2)
  func `a stop request leaves the older set as it is, and the next call makes the new one`(
    question: Int
  ) throws {
    try withTemporaryFolder { folder in
      let old = try TestVideos.make("a.mp4", in: folder, frameCount: 12, width: 48, height: 64)
      let new = try TestVideos.make("b.mp4", in: folder, frameCount: 22, width: 48, height: 64)
      let place = folder.appending(path: "prepared")
      let made = try PreparedSet.prepare(from: .files([old]), options: Self.options, in: place)
      var questions = 0
      let error = videoError {
        _ = try PreparedSet.prepare(
          from: .files([old, new]), options: Self.options, in: place,
          isStopRequested: {
            questions += 1
            return questions >= question
          })
      }
      #expect(error?.code == .stopped)
      expectEqual(try PreparedSet(loading: place), made)
      let both = try PreparedSet.prepare(
        from: .files([old, new]), options: Self.options, in: place)
      #expect(both.sources.map(\.name) == ["a", "b"])
    }
  }
}
