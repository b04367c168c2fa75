// Many clips in one video, for people to compare.

import Basics

/// Clips in a grid, playing together.
package enum Montage {
  /// - Shapes: clips of one F×H×W → F × rows · H × columns · W; unused places are black.
  package static func grid(_ clips: [Video], columnCount: Int = 4) -> Video {
    guard let first = clips.first else { trap("a montage of no clips") }
    let columns = min(columnCount, clips.count)
    let rows = (clips.count + columns - 1) / columns
    let blank = [UInt8](repeating: 0, count: first.width * 3)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(first.bytes.count * rows * columns)
    for frame in 0..<first.frameCount {
      for row in 0..<rows {
        for y in 0..<first.height {
          for number in (row * columns)..<((row + 1) * columns) {
            guard number < clips.count else {
              bytes += blank
              continue
            }
            let start = clips[number].offset(frame: frame, y: y, x: 0)
            bytes += clips[number].bytes[start..<(start + first.width * 3)]
          }
        }
      }
    }
    return Video(
      frameCount: first.frameCount, height: first.height * rows, width: first.width * columns,
      bytes: bytes)
  }
}
