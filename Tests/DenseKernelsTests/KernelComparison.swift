// How a kernel is tested: its Float path against its slow twin on equal inputs, and the gradients of
// the slow twin against central differences. Inputs are floats, so both types hold them exactly.

import Basics
import DenseKernels
import TestSupport
import Testing

let epsilon = Double(Float.ulpOfOne)

/// Standard normals, the same for every scalar type.
func normals<Scalar: KernelScalar>(_ count: Int, _ number: Int) -> Buffer<Scalar> {
  Buffer(
    RandomStream(seed: 1, purpose: .tests, step: number).normals(count: count).map(Scalar.init))
}

/// A buffer that a kernel must overwrite: poison where it does not.
func poisoned<Scalar: KernelScalar>(_ count: Int) -> Buffer<Scalar> {
  Buffer([Scalar](repeating: .nan, count: count))
}

func doubles<Scalar: KernelScalar>(_ buffers: Buffer<Scalar>?...) -> [[Double]] {
  buffers.map { $0?.array.map(Double.init) ?? [] }
}

/// Expects each output of the Float path within `absolute + relative · |truth|` of the Double one.
func expectAgreement(
  _ fast: [[Double]], _ slow: [[Double]], absolute: Double, relative: Double = 0,
  _ label: @autoclosure () -> String, location: SourceLocation = #_sourceLocation
) {
  for (output, (actual, expected)) in zip(fast, slow).enumerated() {
    let problem = difference(actual, expected, absolute: absolute, relative: relative)
    #expect(problem == nil, "output \(output), \(label())", sourceLocation: location)
  }
}

/// Expects `gradients[k]` = ∂ Σ outputWeights · forward(inputs) / ∂ inputs[k], by central differences.
///
/// Steps of 1e-5 leave a truncation error near 1e-10 of third derivatives of order one and a
/// rounding error near 1e-16 / 1e-5 per term; 1e-7 is far above both and far below any slip.
func expectGradients(
  _ gradients: [[Double]], at inputs: [[Double]], outputWeights: [Double],
  location: SourceLocation = #_sourceLocation, forward: ([Buffer<Double>]) -> Buffer<Double>
) {
  func loss(_ inputs: [[Double]]) -> Double {
    let outputs = forward(inputs.map { Buffer($0) }).array
    return zip(outputs, outputWeights).reduce(0) { $0 + $1.0 * $1.1 }
  }
  for k in inputs.indices {
    let numeric = inputs[k].indices.map { i in
      var moved = inputs
      moved[k][i] = inputs[k][i] + 1e-5
      let above = loss(moved)
      moved[k][i] = inputs[k][i] - 1e-5
      return (above - loss(moved)) / 2e-5
    }
    let problem = difference(gradients[k], numeric, absolute: 1e-7, relative: 1e-7)
    #expect(problem == nil, "input \(k)", sourceLocation: location)
  }
}

/// Gradient buffers start from this, so that a kernel which overwrites is caught.
let gradientStart = 0.5

func startedGradient<Scalar: KernelScalar>(_ count: Int) -> Buffer<Scalar> {
  Buffer([Scalar](repeating: Scalar(gradientStart), count: count))
}

func withoutStart(_ gradient: Buffer<Double>) -> [Double] {
  gradient.array.map { $0 - gradientStart }
}

/// Sizes around the lanes and blocks of the kernels.
let oddSizes = [1, 3, 16, 17, 33, 63, 65, 129]

/// A gradient that a backward kernel is to add to.
func added<S: KernelScalar>(to buffer: Buffer<S>) -> GradientBuffer<S> {
  GradientBuffer(buffer, accumulates: true)
}

/// A gradient that a backward kernel is to overwrite.
func over<S: KernelScalar>(_ buffer: Buffer<S>) -> GradientBuffer<S> {
  GradientBuffer(buffer, accumulates: false)
}
