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
    let angles = zip(gridSizes, axisWidths).map { size, width in
      let frequencies = stride(from: 0, to: width, by: 2).map { index -> Float in
        1 / Float(pow(Double(Float(theta)), Double(Float(index) / Float(width))))
      }
      return (0..<size).map { position in frequencies.map { Double(Float(position) * $0) } }
    }
    var all: [Double] = []
    for frame in angles[0] {
      for row in angles[1] {
        for column in angles[2] { all += frame + row + column }
      }
    }
    self.init(
      tokenCount: gridSizes.reduce(1, *), cosines: all.map { cos($0) },
      sines: all.map { sin($0) })
  }
}
