// Rotary positions of video tokens: a head's elements are split among frame, row and column, each with
// interleaved pairs and frequencies θ^(−2i/d).
//
// Rounded to Float32 where diffusers rounds (frequency, angle); the cosine itself is exact.
//
// Source: diffusers, `get_1d_rotary_pos_embed`, HunyuanVideoRotaryPosEmbed.

import Autodiff
import DenseKernels
import Foundation

extension RotaryTable {
  /// Tokens in the order frame, row, column; positions count from 0 on each axis.
  /// - Precondition: three even axis widths.
  init(gridSizes: [Int], axisWidths: [Int], theta: Double) {
    precondition(gridSizes.count == 3 && axisWidths.count == 3, "\(gridSizes), \(axisWidths)")
    let axes = zip(gridSizes, axisWidths).map { size, width in
      let frequencies = stride(from: 0, to: width, by: 2).map { index -> Float in
        1 / Float(pow(Double(Float(theta)), Double(Float(index) / Float(width))))
      }
      return (0..<size).map { position in frequencies.map { Double(Float(position) * $0) } }
    }
    self.init(
      tokenCount: gridSizes.reduce(1, *),
      cosines: Self.table(of: axes.map { $0.map { $0.map { cos($0) } } }),
      sines: Self.table(of: axes.map { $0.map { $0.map { sin($0) } } }))
  }

  /// Every token's elements, from those of the positions on each axis.
  private static func table(of axes: [[[Double]]]) -> [Double] {
    var elements: [Double] = []
    for frame in axes[0] {
      for row in axes[1] {
        for column in axes[2] { elements += frame + row + column }
      }
    }
    return elements
  }
}
