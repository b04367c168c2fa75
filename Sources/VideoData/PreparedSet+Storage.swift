// A prepared set on disk:
//   prepared.json           names, sizes, hashes of inputs and frames, options, PSNR
//   codec.safetensors       first.mean, first.basis, first.deviations, group.…   (F32)
//   source-0.safetensors …  frames (U8, F×H×W×3)
// It is written into a temporary folder beside its place and renamed, so it is whole or not there.

import Checkpoints
import DenseKernels
package import Foundation

extension PreparedSet {
  static let formatVersion = 1

  /// `prepared.json`.
  struct Listing: Codable {
    struct Source: Codable {
      let name: String
      let framesPerSecond: Double
      let frameCount: Int
      let height: Int
      let width: Int
      let codecPSNR: Double
      let contentHash: String
    }
    let formatVersion: Int
    let fingerprint: String
    let isProcedural: Bool
    let codecPSNR: Double
    let options: PreparationOptions
    let sources: [Source]
    let skipped: [String]
  }

  static func listing(in folder: URL) throws -> Listing {
    let file = folder.appending(path: "prepared.json")
    guard let content = try? Data(contentsOf: file) else {
      throw VideoError(.missingFile, "\(folder.path) holds no prepared set; run the prepare phase")
    }
    do {
      let listing = try JSONDecoder().decode(Listing.self, from: content)
      guard listing.formatVersion == formatVersion, listing.options.problems().isEmpty else {
        throw damage(folder, "prepared.json is of format \(listing.formatVersion)")
      }
      return listing
    } catch let error as DecodingError {
      throw damage(folder, "prepared.json cannot be read", cause: error)
    }
  }

  /// Reads a set that was written before, and checks every piece of it.
  /// - Throws: `missingFile` (no set there), `damagedSet`.
  package init(loading folder: URL) throws {
    let listing = try Self.listing(in: folder)
    do {
      let stored = try SafetensorsReader(opening: folder.appending(path: "codec.safetensors"))
      let codec = try LinearCausalCodec(reading: stored)
      let sources = try listing.sources.enumerated().map { index, entry in
        let frames = StoredFrames(
          in: Self.framesFile(index, in: folder), frameCount: entry.frameCount,
          height: entry.height, width: entry.width, contentHash: entry.contentHash)
        guard entry.frameCount >= listing.options.clipFrameCount,
          try frames.isIntact()
        else { throw Self.damage(folder, "the frames of \(entry.name) are not what was written") }
        return Source(
          name: entry.name, frames: frames,
          framesPerSecond: entry.framesPerSecond,
          windows: ClipWindows(
            frameCount: entry.frameCount, clipFrameCount: listing.options.clipFrameCount,
            heldOutShare: listing.options.heldOutShare),
          codecPSNR: entry.codecPSNR)
      }
      guard !sources.isEmpty, codec.channelCount == listing.options.latentChannels else {
        throw Self.damage(folder, "sources or codec do not fit prepared.json")
      }
      self.init(
        sources: sources, codec: codec, options: listing.options, codecPSNR: listing.codecPSNR,
        isProcedural: listing.isProcedural, fingerprint: listing.fingerprint,
        skipped: listing.skipped)
    } catch let error as CheckpointError {
      throw Self.damage(folder, "a piece cannot be read", cause: error)
    }
  }

  private static func damage(
    _ folder: URL, _ what: String, cause: (any Error)? = nil
  ) -> VideoError {
    VideoError(
      .damagedSet,
      "the prepared set in \(folder.path) is damaged: \(what); remove the folder and prepare again",
      cause: cause)
  }

  /// Where the frames of a source lie in the folder of a set.
  static func framesFile(_ source: Int, in folder: URL) -> URL {
    folder.appending(path: "source-\(source).safetensors")
  }

  /// Writes the rest of the set to the folder that has its frames, and makes that the set in `folder`,
  /// replacing what is there.
  /// - Throws: `unwritable`, and what writing safetensors throws.
  func finish(_ scratch: ScratchFolder, as folder: URL) throws {
    try codec.write(to: scratch.file("codec.safetensors"))
    let listing = Listing(
      formatVersion: Self.formatVersion, fingerprint: fingerprint, isProcedural: isProcedural,
      codecPSNR: codecPSNR, options: options,
      sources: sources.map {
        Listing.Source(
          name: $0.name, framesPerSecond: $0.framesPerSecond, frameCount: $0.frames.frameCount,
          height: $0.frames.height, width: $0.frames.width, codecPSNR: $0.codecPSNR,
          contentHash: $0.frames.contentHash)
      }, skipped: skipped)
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    let text = try encoder.encode(listing)
    do {
      try text.write(to: scratch.file("prepared.json"))
      if FileManager.default.fileExists(atPath: folder.path) {
        try FileManager.default.removeItem(at: folder)
      }
      try FileManager.default.moveItem(at: scratch.url, to: folder)
    } catch {
      throw VideoError(
        .unwritable, "cannot write the prepared set to \(folder.path); \(VideoError.writingAdvice)",
        cause: error)
    }
  }
}

extension LinearCausalCodec {
  /// Of all numbers of the codec, bit by bit.
  var fingerprint: String {
    var fingerprint = Fingerprint()
    for tensor in tensors {
      fingerprint.add(tensor.name)
      for value in tensor.values {
        let bits = value.bitPattern
        fingerprint.add((0..<4).map { UInt8(truncatingIfNeeded: bits >> (8 * $0)) })
      }
    }
    return fingerprint.text
  }

  private var tensors: [(name: String, shape: [Int], values: [Float])] {
    [("first", first), ("group", group)].flatMap { name, components in
      [
        ("\(name).mean", [components.mean.count], components.mean),
        ("\(name).basis", [channelCount, components.mean.count], components.basis),
        ("\(name).deviations", [channelCount], components.deviations),
      ]
    }
  }

  /// Writes the codec as safetensors; reading it gives the same bits.
  package func write(to file: URL) throws {
    let writer = try SafetensorsWriter(
      creating: file,
      tensors: tensors.map { TensorDeclaration($0.name, .float32, shape: $0.shape) })
    for tensor in tensors { try writer.append(tensor.values, to: tensor.name) }
    try writer.finish()
  }

  /// Reads a codec written by `write(to:)`.
  /// - Throws: `damagedSet` for sizes that are no codec's, and what the reader throws.
  package init(loading file: URL) throws {
    try self.init(reading: SafetensorsReader(opening: file))
  }

  fileprivate init(reading file: SafetensorsReader) throws {
    func components(_ name: String, depth: Int) throws -> Components {
      let mean = try file.floats("\(name).mean")
      let basis = try file.floats("\(name).basis")
      let deviations = try file.floats("\(name).deviations")
      guard mean.count == depth * 48, basis.count == mean.count * deviations.count,
        deviations.allSatisfy({ $0 > 0 })
      else {
        throw VideoError(
          .damagedSet, "\(file.path) holds no linear codec: \(name) has the wrong sizes")
      }
      return Components(depth: depth, mean: mean, basis: basis, deviations: deviations)
    }
    let first = try components("first", depth: 1)
    let group = try components("group", depth: 4)
    guard first.deviations.count == group.deviations.count else {
      throw VideoError(.damagedSet, "\(file.path) holds two numbers of channels")
    }
    self.init(first: first, group: group)
  }
}
