// Sinusoids of a time: cosines first, then sines, frequencies 10000^(−k/half).
//
// Frequencies and angles are rounded to Float32 where PyTorch rounds them. At guidance 6000 one rounding of
// an angle is 2·10⁻⁴, more than the whole tolerance against diffusers, so "more exact" would be wrong.
//
// Source: diffusers, `get_timestep_embedding` with flip_sin_to_cos, downscale_freq_shift 0.

import DenseKernels
import Foundation

enum SinusoidalEmbedding {
  static let longestPeriod = 10_000.0
  /// Width for times and guidance in all of diffusers' transformers.
  static let standardWidth = 256
  /// The two of the 128 frequencies of width 256 that lie so near a tie (0.48 of a unit) that
  /// PyTorch's exp rounds them up. The others agree with the rounded exact value.
  private static let roundedUpByPyTorch = [12, 106]

  /// - Shapes: `times` B → B·width, row by row.
  static func elements<Scalar: KernelScalar>(
    of times: [Double], width: Int, as type: Scalar.Type = Scalar.self
  ) -> [Scalar] {
    precondition(width % 2 == 0, "a sinusoidal embedding of odd width \(width)")
    let half = width / 2
    var frequencies = (0..<half).map { index -> Float in
      let exponent = Float(-log(longestPeriod)) * Float(index) / Float(half)
      return Float(exp(Double(exponent)))
    }
    if width == standardWidth {
      for index in roundedUpByPyTorch { frequencies[index] = frequencies[index].nextUp }
    }
    return times.flatMap { time in
      let angles = frequencies.map { Double(Float(time) * $0) }
      return angles.map { Scalar(cos($0)) } + angles.map { Scalar(sin($0)) }
    }
  }
}
