// What the prepare phase may be told.

/// Every option has the value that the default job uses.
package struct PreparationOptions: Codable, Hashable, Sendable {
  /// Frames of a clip, 1 + a multiple of 4. Default 17.
  package var clipFrameCount = 17
  /// Side of the square crop in pixels, a multiple of 4. Default 64.
  package var cropSize = 64
  /// Short side that frames are scaled to, in pixels. Default 72: room for the crop to move.
  package var shortSide = 72
  /// Of longer frames only a window of this aspect is kept. Default 88/72 (which is 11/9).
  package var maximumAspect = 11.0 / 9.0
  /// Share of each video's frames, from its end, that training never sees. Default 0.2.
  package var heldOutShare = 0.2
  /// Frames read of each video at most. Default 4,000, about two minutes.
  package var maximumFrameCount = 4_000
  /// Mirror half of the clips. Default true.
  package var mirrors = true
  /// Play half of the clips backward. Default true.
  package var reverses = true
  /// Channels of the latents. Default 16.
  package var latentChannels = 16
  /// People and frames each of the procedural talking face, where there is no video. Default 4, 160.
  package var proceduralPeople = 4
  package var proceduralFrames = 160
  /// Seed of the procedural people. Default 0.
  package var proceduralSeed: UInt64 = 0

  package init() {}

  /// Every problem of the options, one line each, beginning with the option's name; empty: none.
  package func problems() -> [String] {
    var result: [String] = []
    func require(_ condition: Bool, _ problem: String) {
      if !condition { result.append(problem) }
    }
    require(
      clipFrameCount >= 5 && clipFrameCount % 4 == 1,
      "clipFrameCount: \(clipFrameCount) is not 1 + a multiple of 4, like 17")
    require(
      cropSize >= 8 && cropSize % 4 == 0, "cropSize: \(cropSize) is not a multiple of 4 from 8 on")
    require(
      shortSide >= cropSize && shortSide <= 2_160,
      "shortSide: \(shortSide) is not between cropSize (\(cropSize)) and 2160")
    require(maximumAspect >= 1, "maximumAspect: \(maximumAspect) is below 1")
    require(
      heldOutShare >= 0 && heldOutShare < 1, "heldOutShare: \(heldOutShare) is not in [0, 1)")
    require(
      maximumFrameCount >= clipFrameCount,
      "maximumFrameCount: \(maximumFrameCount) is less than a clip (\(clipFrameCount))")
    require(
      latentChannels >= 1 && latentChannels <= 48,
      "latentChannels: \(latentChannels) is not between 1 and 48")
    require(proceduralPeople >= 1, "proceduralPeople: \(proceduralPeople) is less than 1")
    require(
      proceduralFrames >= clipFrameCount,
      "proceduralFrames: \(proceduralFrames) is less than a clip (\(clipFrameCount))")
    return result
  }

  /// Size that a video of this size is decoded at.
  func scaledSize(height: Int, width: Int) -> (height: Int, width: Int) {
    let short = Double(min(height, width))
    func scaled(_ side: Int) -> Int { Int((Double(side) * Double(shortSide) / short).rounded()) }
    return (scaled(height), scaled(width))
  }

  var maximumLongSide: Int { Int((Double(shortSide) * maximumAspect).rounded()) }
}
