// The straight path between data and noise, and what a velocity says about both ends.
//
// t = 1 is pure noise; the network's time input is 1000 t. Conversions run in Float64.
// Source: w2svd specification, equations 1–6 (HunyuanVideo, FastVideo, DMD2 code).

package import Basics
package import DenseKernels
import Foundation
package import Tensors

package enum FlowMatching {
  /// Time shift: s u / (1 + (s − 1) u); s = 1 is the identity. (6)
  ///
  /// Both ends stay exactly where they are, whatever s: 1 + (s − 1) rounds for s below ½, and a first
  /// time off 1 would mix the clean sample into pure noise.
  /// - Precondition: s > 0.
  package static func shifted(_ u: Double, by s: Double) -> Double {
    require(s > 0, "a time shift of \(s); it must be positive")
    return u == 1 ? 1 : s * u / (1 + (s - 1) * u)
  }

  /// x_t = (1 − t) x₀ + t ε, one time per sample. At t = 1 it is ε bit for bit. (1)
  /// - Shapes: x₀, ε [B, …] → [B, …].
  package static func noised<Scalar: KernelScalar>(
    _ clean: Tensor<Scalar>, noise: Tensor<Scalar>, times: [Double], in arena: Arena,
    booking: Booking
  ) -> Tensor<Scalar> {
    require(
      clean.shape == noise.shape && clean.shape.first == times.count,
      "clean \(clean.shape), noise \(noise.shape) and \(times.count) times")
    let result = Tensor<Scalar>(shape: clean.shape, in: arena, booking: booking)
    for (b, t) in times.enumerated() {
      let row = b..<(b + 1)
      if t == 1 {
        result.rows(row).buffer.copy(from: noise.rows(row).buffer)
      } else {
        Scalar.combine(
          Scalar(1 - t), clean.rows(row).buffer, Scalar(t), noise.rows(row).buffer,
          into: result.rows(row).buffer)
      }
    }
    return result
  }

  /// x̂₀ = x_t − t v in Float64. (3)
  package static func cleanEstimate<Scalar: KernelScalar>(
    noisy: Tensor<Scalar>, velocity: Tensor<Scalar>, times: [Double]
  ) -> [Double] {
    require(
      noisy.shape == velocity.shape && noisy.shape.first == times.count,
      "noisy \(noisy.shape), velocity \(velocity.shape) and \(times.count) times")
    var result = noisy.doubles
    let velocities = velocity.doubles
    let width = times.isEmpty ? 0 : result.count / times.count
    for (b, t) in times.enumerated() {
      for index in (b * width)..<((b + 1) * width) { result[index] -= t * velocities[index] }
    }
    return result
  }
}

/// Times τ₁ = 1 > … > τ_K > τ_{K+1} = 0 of K sampling steps, from uniform u and the shift. (6)
package struct SamplingSchedule: Hashable, Sendable {
  /// K + 1 times, the last one 0.
  package let times: [Double]
  package var stepCount: Int { times.count - 1 }

  package init(stepCount: Int, shift: Double) {
    require(stepCount >= 1, "a schedule of \(stepCount) steps")
    times = (0...stepCount).map {
      FlowMatching.shifted(1 - Double($0) / Double(stepCount), by: shift)
    }
  }
}

/// How training times are drawn, one per sample.
package enum TimeDistribution: Hashable, Sendable {
  /// sigmoid(N(0,1)), then shifted: the density W itself is trained on.
  case logitNormal(shift: Double)
  /// Uniform, shifted, then clamped to `bounds`: p_score of the distillation terms.
  case uniform(shift: Double, bounds: ClosedRange<Double>)

  package func time(from stream: RandomStream) -> Double {
    switch self {
    case .logitNormal(let shift):
      FlowMatching.shifted(1 / (1 + exp(-stream.normal(at: 0))), by: shift)
    case .uniform(let shift, let bounds):
      min(
        max(FlowMatching.shifted(stream.uniform(at: 0), by: shift), bounds.lowerBound),
        bounds.upperBound)
    }
  }
}

/// Standard normal latents, each sample from its own stream.
package func normalTensor<Scalar: KernelScalar>(
  _ streams: [RandomStream], sampleShape: [Int], in arena: Arena, booking: Booking
) -> Tensor<Scalar> {
  let width = sampleShape.reduce(1, *)
  let tensor = Tensor<Scalar>(shape: [streams.count] + sampleShape, in: arena, booking: booking)
  for (sample, stream) in streams.enumerated() {
    let range = (sample * width)..<((sample + 1) * width)
    Scalar.copy(stream.normals(count: width), into: tensor.buffer[range])
  }
  return tensor
}
