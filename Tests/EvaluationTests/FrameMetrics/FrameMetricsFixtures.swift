import Evaluation

/// The clips of `clip` in Tests/Fixtures/generate/evaluation.py.
func fixtureClip(_ multiplier: Int) -> PixelClip {
  let (frames, height, width) = (2, 16, 20)
  let pixels = (0..<(frames * height * width * 3)).map { index -> UInt8 in
    let offset: Double = Double(index / 3 % width) - Double(width) / 2
    let smooth = Int(128 + 90 * offset / Double(width))
    let noise: Int = (index * index * multiplier + 31 * index) % 61
    return UInt8(smooth + noise - 30)
  }
  return PixelClip(pixels: pixels, frameCount: frames, height: height, width: width)
}

/// Frames of one gray level each.
func flatClip(_ levels: [UInt8], height: Int = 2, width: Int = 3) -> PixelClip {
  PixelClip(
    pixels: levels.flatMap { [UInt8](repeating: $0, count: height * width * 3) },
    frameCount: levels.count, height: height, width: width)
}
