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

  /// - Shapes: `times` B → B·width, row by row.
  static func elements<Scalar: KernelScalar>(
    of times: [Double], width: Int, as type: Scalar.Type = Scalar.self
  ) -> [Scalar] {
    precondition(width % 2 == 0, "a sinusoidal embedding of odd width \(width)")
    let half = width / 2
    let frequencies = (0..<half).map { index -> Float in
      let exponent = Float(-log(longestPeriod)) * Float(index) / Float(half)
      return Float(exp(Double(exponent)))
    }
    return times.flatMap { time in
      let angles = frequencies.map { Double(Float(time) * $0) }
      return angles.map { Scalar(cos($0)) } + angles.map { Scalar(sin($0)) }
    }
  }
}
