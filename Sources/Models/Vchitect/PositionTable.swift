// The fixed positions of a frame's tokens: sines and cosines of column and row.
//
// The first half of the width carries the column, the second the row; each sines first, with frequencies
// 10000^(−k/(D/4)). A smaller grid is cut from the middle of the table. Rounded to Float32 where the
// released code rounds: the position, and the table, which is a buffer of its weights.
//
// Source: Stable Diffusion 3 (2403.03206) §5.3.2; diffusers, `PatchEmbed.cropped_pos_embed`,
// `get_2d_sincos_pos_embed`.

import DenseKernels
import Foundation

struct PositionTable {
  /// D.
  let width: Int
  /// The halves of the rows of the table: position along one axis → D/2 elements.
  private let halves: [[Float]]

  init(_ configuration: VchitectConfiguration) {
    let (size, width) = (configuration.positionTableSize, configuration.width)
    let baseSize = configuration.sampleSize / configuration.patchSize
    let stepsPerUnit = Float(Double(size) / Double(baseSize))
    let frequencies = (0..<(width / 4)).map { pow(10_000, -Double($0) / Double(width / 4)) }
    self.width = width
    halves = (0..<size).map { index in
      let angles = frequencies.map { Double(Float(index) / stepsPerUnit) * $0 }
      return angles.map { Float(sin($0)) } + angles.map { Float(cos($0)) }
    }
  }

  /// The middle of the table, row by row: rows·columns × D.
  func cropped<Scalar: KernelScalar>(
    rows: Int, columns: Int, as type: Scalar.Type = Scalar.self
  ) -> [Scalar] {
    var elements: [Scalar] = []
    elements.reserveCapacity(rows * columns * width)
    for row in middle(rows) {
      for column in middle(columns) {
        elements += column.lazy.map { Scalar($0) }
        elements += row.lazy.map { Scalar($0) }
      }
    }
    return elements
  }

  private func middle(_ count: Int) -> ArraySlice<[Float]> {
    let first = (halves.count - count) / 2
    return halves[first..<(first + count)]
  }
}
