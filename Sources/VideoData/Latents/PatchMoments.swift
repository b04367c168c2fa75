// First and second moments of patches, exact: byte values are integers, and the products of 256
// patches sum to at most 256 · 255² < 2²⁴, which Float32 holds exactly in any order of summing. So a
// batch may go through a fast matrix product, and the total (in Int) has no rounding at all.

import Basics
import DenseKernels

struct PatchMoments {
  static let batchCount = 256

  let geometry: PatchGeometry
  private(set) var patchCount = 0
  private var sums: [Int]
  private var products: [Int]

  init(_ geometry: PatchGeometry) {
    self.geometry = geometry
    sums = Array(repeating: 0, count: geometry.width)
    products = Array(repeating: 0, count: geometry.width * geometry.width)
  }

  /// Adds patches of the first `frameCount` frames, about `limit` of them, as training sees them:
  /// from crops of `cropSize`, whose places spread evenly over all places (the R2 sequence).
  /// Starting frames are skipped evenly to keep to the limit.
  mutating func add(_ video: Video, frameCount: Int, cropSize: Int, limit: Int) {
    let side = geometry.side
    let (cropHeight, cropWidth) = (min(cropSize, video.height), min(cropSize, video.width))
    let startCount = frameCount - geometry.depth + 1
    let patchesPerStart = (cropHeight / side) * (cropWidth / side)
    let spacing = max(1, (startCount * patchesPerStart + limit - 1) / limit)
    let rows = Buffer<Float>(zeroed: Self.batchCount * geometry.width)
    var rowCount = 0
    for (turn, start) in stride(from: 0, to: startCount, by: spacing).enumerated() {
      let cropTop = Self.spread(turn, by: 0.754_877_666_246_692_7, over: video.height - cropHeight)
      let cropLeft = Self.spread(turn, by: 0.569_840_290_998_053_2, over: video.width - cropWidth)
      for top in stride(from: cropTop, through: cropTop + cropHeight - side, by: side) {
        for left in stride(from: cropLeft, through: cropLeft + cropWidth - side, by: side) {
          geometry.gather(
            video, frame: start, top: top, left: left, into: rows, at: rowCount * geometry.width)
          rowCount += 1
          if rowCount == Self.batchCount {
            addBatch(rows, rowCount: rowCount)
            rowCount = 0
          }
        }
      }
    }
    addBatch(rows, rowCount: rowCount)
  }

  /// The `turn`-th of places 0...last that fill the range evenly.
  private static func spread(_ turn: Int, by step: Double, over last: Int) -> Int {
    Int((0.5 + Double(turn) * step).truncatingRemainder(dividingBy: 1) * Double(last + 1))
  }

  private mutating func addBatch(_ rows: Buffer<Float>, rowCount: Int) {
    guard rowCount > 0 else { return }
    let width = geometry.width
    let batch = Matrix(rows, rows: rowCount, columns: width)
    let gram = Buffer<Float>(zeroed: width * width)
    Float.multiply(
      batch.transposed, batch, scale: 1, accumulating: false,
      into: Matrix(gram, rows: width, columns: width))
    for index in products.indices { products[index] += Int(gram[index]) }
    for row in 0..<rowCount {
      for index in 0..<width { sums[index] += Int(rows[row * width + index]) }
    }
    patchCount += rowCount
  }

  /// Mean (P) and second moment (P×P, row-major) of the byte values.
  var normalized: (mean: [Double], secondMoment: [Double]) {
    require(patchCount > 0, "moments of no patches")
    let count = Double(patchCount)
    return (sums.map { Double($0) / count }, products.map { Double($0) / count })
  }
}
