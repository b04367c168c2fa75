// Central differences in Float64: the truth about a gradient.

import Autodiff
import Basics
import DenseKernels
import Tensors
import TestSupport

/// A small computation with inputs and parameters, whose gradients are compared with differences.
struct GradientCheck {
  var inputShapes: [[Int]] = []
  var parameterShapes: [[Int]] = []
  var seed: UInt64 = 7
  let build: (Tape<Double>, [Value<Double>], [Parameter<Double>]) -> Value<Double>

  /// The first disagreement, or nil. The loss is Σ w·output with fixed random w.
  ///
  /// Bound 1e-7: a difference with step 1e-5 carries h²·f‴ ≈ 1e-10 and rounding ε·f/h ≈ 1e-10 for sums of
  /// some hundred terms of order one.
  func firstProblem() -> String? {
    let arena = Arena()
    let booking = Booking(.common, .activations)
    let inputs = inputShapes.enumerated().map { index, shape in
      Tensor<Double>(normals(shape.reduce(1, *), index), shape: shape, in: arena, booking: booking)
    }
    let set = ParameterSet<Double>(
      parameterShapes.enumerated().map {
        ParameterSpecification("p\($0)", $1, .normal(deviation: 1))
      }, in: arena, role: .common)
    set.initialize(seed: seed)
    let gradients = Buffer<Double>(zeroed: set.layout.count)
    set.bindGradients(to: gradients)

    let tape = Tape<Double>(arena: arena, role: .common)
    let leaves = inputs.map { tape.input($0) }
    let output = build(tape, leaves, set.parameters)
    let weights = normals(output.tensor.count, 1_000)
    tape.backward([
      (output, Tensor(weights, shape: output.shape, in: arena, booking: booking))
    ])

    func loss() -> Double {
      let tape = Tape<Double>(arena: arena, role: .common, isRecording: false)
      let output = build(tape, inputs.map { Value(constant: $0) }, set.parameters)
      return zip(output.tensor.array, weights).reduce(0) { $0 + $1.0 * $1.1 }
    }
    func differences(_ buffer: Buffer<Double>) -> [Double] {
      let step = 1e-5
      return (0..<buffer.count).map { index in
        let kept = buffer[index]
        buffer[index] = kept + step
        let above = loss()
        buffer[index] = kept - step
        let below = loss()
        buffer[index] = kept
        return (above - below) / (2 * step)
      }
    }
    for (index, input) in inputs.enumerated() {
      let gradient =
        tape.gradient(of: leaves[index])?.array ?? Array(repeating: 0, count: input.count)
      if let problem = difference(
        gradient, differences(input.buffer), absolute: 1e-7, relative: 1e-7)
      {
        return "input \(index): \(problem)"
      }
    }
    for parameter in set.parameters {
      if let problem = difference(
        parameter.gradient?.array ?? [], differences(parameter.value.buffer), absolute: 1e-7,
        relative: 1e-7)
      {
        return "parameter \(parameter.name): \(problem)"
      }
    }
    return nil
  }

  private func normals(_ count: Int, _ sample: Int) -> [Double] {
    RandomStream(seed: seed, purpose: .tests, sample: sample).normals(count: count)
      .map { Double($0) }
  }
}
