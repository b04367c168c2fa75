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
      return (((reversed ? depth - 1 - t : t) * side + y) * side + (mirrored ? side - 1 - x : x))
        * 3
        + color
    }
  }

  /// Copies the patch at (frame, top, left) to `row` elements on, as byte values.
  func gather(
    _ video: Video, frame: Int, top: Int, left: Int, into rows: Buffer<Float>, at rowStart: Int
  ) {
    var index = rowStart
    for t in 0..<depth {
      for y in 0..<side {
        let start = video.offset(frame: frame + t, y: top + y, x: left)
        for source in start..<start + side * 3 {
          rows[index] = Float(video.bytes[source])
          index += 1
        }
      }
    }
  }

  /// Cuts `depth` frames from `frame` on into all patches of the grid.
  /// - Shapes: F×H×W×3 → (H/side · W/side)×P.
  func cut(
    _ frames: Buffer<Float>, frame: Int, height: Int, width frameWidth: Int,
    into rows: Buffer<Float>
  ) {
    forEachStretch(frame: frame, height: height, width: frameWidth) { stretch, row in
      Float.copyRows(
        frames[stretch], stride: side * 3, to: rows[row..<rows.count], stride: width,
        rowCount: frameWidth / side, width: side * 3)
    }
  }

  /// The inverse of `cut`.
  func join(
    _ rows: Buffer<Float>, into frames: Buffer<Float>, frame: Int, height: Int,
    width frameWidth: Int
  ) {
    forEachStretch(frame: frame, height: height, width: frameWidth) { stretch, row in
      Float.copyRows(
        rows[row..<rows.count], stride: width, to: frames[stretch], stride: side * 3,
        rowCount: frameWidth / side, width: side * 3)
    }
  }

  /// Each row of pixels with where its first stretch lies among the patches' numbers.
  private func forEachStretch(
    frame: Int, height: Int, width frameWidth: Int, _ body: (Range<Int>, Int) -> Void
  ) {
    for t in 0..<depth {
      for y in 0..<height {
        let start = ((frame + t) * height + y) * frameWidth * 3
        let firstPatch = y / side * (frameWidth / side)
        body(
          start..<start + frameWidth * 3,
          firstPatch * width + (t * side + y % side) * side * 3)
      }
    }
  }
}
