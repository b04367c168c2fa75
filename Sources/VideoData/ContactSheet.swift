// Many clips in one picture: a row for each clip, a column for each chosen frame.

import Basics

package enum ContactSheet {
  /// - Shapes: clips of one F×H×W → one frame, rows · (H + gap) by columns · (W + gap), less a gap.
  /// - Parameters:
  ///   - columnCount: frames shown of each clip, evenly spaced, first and last included.
  ///   - gap: white pixels between pictures.
  package static func draw(_ clips: [Video], columnCount: Int, gap: Int = 2) -> Video {
    guard let first = clips.first else { trap("a sheet of no clips") }
    require(
      clips.allSatisfy {
        $0.height == first.height && $0.width == first.width && $0.frameCount > 0
      }, "clips of a sheet have one size and at least a frame")
    let columnCount = max(columnCount, 1)
    let height = clips.count * (first.height + gap) - gap
    let width = columnCount * (first.width + gap) - gap
    var bytes = [UInt8](repeating: 255, count: height * width * 3)
    for (row, clip) in clips.enumerated() {
      for column in 0..<columnCount {
        let frame = columnCount == 1 ? 0 : column * (clip.frameCount - 1) / (columnCount - 1)
        for y in 0..<clip.height {
          let source = clip.offset(frame: frame, y: y, x: 0)
          let target =
            ((row * (first.height + gap) + y) * width + column * (first.width + gap)) * 3
          bytes.replaceSubrange(
            target..<target + clip.width * 3, with: clip.bytes[source..<source + clip.width * 3])
        }
      }
    }
    return Video(frameCount: 1, height: height, width: width, bytes: bytes)
  }
}
