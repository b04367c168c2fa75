// Cutting a video into patches and putting it together again. A patch is a row of numbers in the
// order frame, y, x, color.

import DenseKernels

/// `depth` frames of side×side pixels.
struct PatchGeometry: Hashable, Sendable {
  let depth: Int
  let side: Int

  /// Numbers of one patch, P.
  var width: Int { depth * side * side * 3 }

  /// Where each number of a patch is found in the patch mirrored, or played backward.
  func permutation(mirrored: Bool, reversed: Bool) -> [Int] {
    (0..<width).map { index in
      let color = index % 3
      let x = index / 3 % side
      let y = index / (3 * side) % side
      let t = index / (3 * side * side)
      return (((reversed ? depth - 1 - t : t) * side + y) * side + (mirrored ? side - 1 - x : x)) * 3
        + color
    }
  }

  /// Writes the patch at (frame, top, left) to `row` as byte values, less `mean` after `transform`.
  func gather(
    _ video: Video, frame: Int, top: Int, left: Int, into rows: Buffer<Float>, at rowStart: Int,
    transform: (_ byte: UInt8, _ index: Int) -> Float
  ) {
    var index = 0
    for t in 0..<depth {
      for y in 0..<side {
        let start = video.offset(frame: frame + t, y: top + y, x: left)
        for source in start..<start + side * 3 {
          rows[rowStart + index] = transform(video.bytes[source], index)
          index += 1
        }
      }
    }
  }

  /// Writes a patch of numbers to its place in F×H×W×3 values.
  func scatter(
    _ rows: Buffer<Float>, at rowStart: Int, into values: inout [Float], frame: Int, top: Int,
    left: Int, height: Int, width frameWidth: Int
  ) {
    var index = rowStart
    for t in 0..<depth {
      for y in 0..<side {
        let start = (((frame + t) * height + top + y) * frameWidth + left) * 3
        for target in start..<start + side * 3 {
          values[target] = rows[index]
          index += 1
        }
      }
    }
  }
}
