// Velocity fields with closed forms, and one that tells what it was asked.

import Autodiff
import Basics
import DenseKernels
import Diffusion
import Tensors

/// Tensors of a test: one arena, seeded normals.
struct Bench<Scalar: KernelScalar> {
  let arena = Arena()
  let booking = Booking(.common, .activations)

  func tensor(_ elements: [Double], _ shape: [Int]) -> Tensor<Scalar> {
    Tensor(rounding: elements, shape: shape, in: arena, booking: booking)
  }

  func normals(_ shape: [Int], _ sample: Int, seed: UInt64 = 3) -> Tensor<Scalar> {
    let stream = RandomStream(seed: seed, purpose: .tests, sample: sample)
    return tensor(stream.normals(count: shape.reduce(1, *)).map { Double($0) }, shape)
  }

  func tape(recording: Bool = true) -> Tape<Scalar> {
    Tape(arena: arena, role: .common, isRecording: recording)
  }
}

/// The exact velocity where every element of the data is N(mean, deviation²), independently:
/// v = −m + ((t − (1 − t) s²) / V) (x_t − (1 − t) m), V = (1 − t)² s² + t².
struct GaussianDenoiser: Denoiser {
  var mean = 0.0
  var deviation = 1.0

  func variance(at t: Double) -> Double {
    (1 - t) * (1 - t) * deviation * deviation + t * t
  }

  func velocity(
    of noisy: Value<Double>, times: [Double], on tape: Tape<Double>
  ) -> Value<Double> {
    var elements = noisy.tensor.doubles
    let width = elements.count / times.count
    for (b, t) in times.enumerated() {
      let gain = (t - (1 - t) * deviation * deviation) / variance(at: t)
      for index in (b * width)..<((b + 1) * width) {
        elements[index] = -mean + gain * (elements[index] - (1 - t) * mean)
      }
    }
    return Value(
      constant: Tensor(
        rounding: elements, shape: noisy.shape, in: tape.arena,
        booking: Booking(tape.role, .activations)))
  }
}

/// The exact velocity of the straight path from one noise to one clean sample: ε − x₀ everywhere.
struct StraightDenoiser: Denoiser {
  let clean: Tensor<Double>
  let noise: Tensor<Double>

  func velocity(
    of noisy: Value<Double>, times: [Double], on tape: Tape<Double>
  ) -> Value<Double> {
    tape.combine(1, Value(constant: noise), -1, Value(constant: clean))
  }
}

/// (1 − share) · first + share · second: the weak real DiT of a network affine in its adapter.
struct BlendedDenoiser: Denoiser {
  let first: GaussianDenoiser
  let second: GaussianDenoiser
  let share: Double

  func velocity(
    of noisy: Value<Double>, times: [Double], on tape: Tape<Double>
  ) -> Value<Double> {
    tape.combine(
      1 - share, first.velocity(of: noisy, times: times, on: tape), share,
      second.velocity(of: noisy, times: times, on: tape))
  }
}

/// v = x Wᵀ + weight · (x Aᵀ) Bᵀ at every time: a network affine in its adapter.
struct LinearDenoiser: Denoiser {
  let matrix: Parameter<Double>
  var update: LowRankUpdate<Double>?

  func velocity(
    of noisy: Value<Double>, times: [Double], on tape: Tape<Double>
  ) -> Value<Double> {
    tape.linear(noisy, weight: matrix, update: update)
  }
}

/// Passes everything on, and notes it.
final class SpyDenoiser: Denoiser {
  struct Call {
    let noisy: [Double]
    let times: [Double]
    let isRecording: Bool
  }

  let wrapped: any Denoiser<Double>
  private(set) var calls: [Call] = []

  init(_ wrapped: any Denoiser<Double>) { self.wrapped = wrapped }

  func velocity(
    of noisy: Value<Double>, times: [Double], on tape: Tape<Double>
  ) -> Value<Double> {
    calls.append(
      Call(noisy: noisy.tensor.array, times: times, isRecording: tape.isRecording))
    return wrapped.velocity(of: noisy, times: times, on: tape)
  }
}

/// Mean of independent draws with its standard error.
struct Estimate {
  let mean: Double
  let standardError: Double

  init(_ draws: [Double]) {
    let count = Double(draws.count)
    let mean = draws.reduce(0, +) / count
    let squares = draws.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
    self.mean = mean
    standardError = (squares / (count - 1) / count).squareRoot()
  }

  /// Within four standard errors: a wrong draw of the seeded stream has a chance of 6e-5, once.
  func agrees(with expected: Double) -> Bool { abs(mean - expected) <= 4 * standardError }
}
