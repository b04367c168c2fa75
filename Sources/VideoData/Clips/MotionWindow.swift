// Which part of a wide (or tall) frame is kept: the window of the wanted aspect in which the most
// moves, near its middle. In a talking portrait that is the face, wherever the photographer put it.
// Sums are integers, ties go to the window nearest the middle: the choice is the same everywhere.

package enum MotionWindow {
  /// The whole frame if its long side is at most `maximumLongSide`, else the busiest such window.
  package static func crop(_ video: Video, maximumLongSide: Int) -> Video {
    let isWide = video.width >= video.height
    let longSide = max(video.width, video.height)
    guard longSide > maximumLongSide else { return video }
    let start = busiestStart(
      motion(of: video, alongWidth: isWide), windowLength: maximumLongSide)
    return isWide
      ? video.cropped(top: 0, left: start, height: video.height, width: maximumLongSide)
      : video.cropped(top: start, left: 0, height: maximumLongSide, width: video.width)
  }

  /// Σ |frame − previous frame| for each column (or row), over about 100 pairs of frames.
  private static func motion(of video: Video, alongWidth: Bool) -> [Int] {
    var sums = [Int](repeating: 0, count: alongWidth ? video.width : video.height)
    for frame in stride(from: 1, to: video.frameCount, by: max(1, video.frameCount / 100)) {
      for y in 0..<video.height {
        for x in 0..<video.width {
          let now = video.offset(frame: frame, y: y, x: x)
          let before = now - video.bytesPerFrame
          for channel in 0..<3 {
            sums[alongWidth ? x : y] += abs(
              Int(video.bytes[now + channel]) - Int(video.bytes[before + channel]))
          }
        }
      }
    }
    return sums
  }

  /// The start with the greatest Σ motion · (i + 1)(length − i), i the place inside the window: a
  /// weight that is largest in the middle, so what moves comes to lie there.
  private static func busiestStart(_ motion: [Int], windowLength: Int) -> Int {
    let last = motion.count - windowLength
    var best = (start: 0, sum: -1)
    for start in 0...last {
      let sum = (0..<windowLength).reduce(0) {
        $0 + motion[start + $1] * ($1 + 1) * (windowLength - $1)
      }
      let isNearerMiddle = abs(2 * start - last) < abs(2 * best.start - last)
      if sum > best.sum || (sum == best.sum && isNearerMiddle) { best = (start, sum) }
    }
    return best.start
  }
}
