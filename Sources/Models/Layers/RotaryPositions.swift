// Rotary positions of video tokens, interleaved pairs with frequencies θ^(−2i/d): HunyuanVideo splits a
// head's elements among frame, row and column, Vchitect-2.0 gives them all to the frame.
//
// Rounded to Float32 where the released codes round (frequency, angle); the cosine itself is exact.
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
    let axes = zip(gridSizes, axisWidths).map {
      Self.angles(positionCount: $0, width: $1, theta: theta)
    }
    self.init(
      tokenCount: gridSizes.reduce(1, *),
      cosines: Self.table(of: axes.map { $0.map { $0.map { cos($0) } } }),
      sines: Self.table(of: axes.map { $0.map { $0.map { sin($0) } } }))
  }

  /// Positions on one axis that takes whole heads: the frames of Vchitect-2.0.
  /// - Parameter scaling: ρ: a position counts as 1/ρ of one, so that longer clips fit.
  /// - Source: Vchitect-2.0 specification §3.3.
  init(positionCount: Int, headWidth: Int, theta: Double, scaling: Double) {
    let angles = Self.angles(
      positionCount: positionCount, width: headWidth, theta: theta, scaling: scaling
    ).flatMap(\.self)
    self.init(
      tokenCount: positionCount, cosines: angles.map { cos($0) }, sines: angles.map { sin($0) })
  }

  /// (p / scaling) · θ^(−2i/width) for every position p and pair i.
  private static func angles(
    positionCount: Int, width: Int, theta: Double, scaling: Double = 1
  ) -> [[Double]] {
    let frequencies = stride(from: 0, to: width, by: 2).map { index -> Float in
      1 / Float(pow(Double(Float(theta)), Double(Float(index) / Float(width))))
    }
    return (0..<positionCount).map { position in
      frequencies.map { Double(Float(position) / Float(scaling) * $0) }
    }
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
