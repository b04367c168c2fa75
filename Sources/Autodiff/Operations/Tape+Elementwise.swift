// Activations and linear combinations.

package import DenseKernels
import Tensors

extension Tape {
  package func apply(_ activation: Activation, to x: Value<Scalar>) -> Value<Scalar> {
    let output = result(x.shape)
    Scalar.apply(activation, to: x.tensor.buffer, into: output.buffer)
    return record(output, from: [x]) { outputGradient, gradients in
      guard let dx = gradients.place(of: 0) else { return }
      Scalar.applyBackward(
        activation, outputGradient: outputGradient.buffer, x: x.tensor.buffer,
        inputGradient: dx)
    }
  }

  /// a x + b y, of equal shapes.
  package func combine(
    _ a: Double, _ x: Value<Scalar>, _ b: Double, _ y: Value<Scalar>
  ) -> Value<Scalar> {
    precondition(x.shape == y.shape, "combining \(x.shape) and \(y.shape)")
    let (a, b) = (Scalar(a), Scalar(b))
    let output = result(x.shape)
    Scalar.combine(a, x.tensor.buffer, b, y.tensor.buffer, into: output.buffer)
    return record(output, from: [x, y]) { outputGradient, gradients in
      for (index, factor) in [a, b].enumerated() where factor != 1 {
        guard let gradient = gradients.addend(of: index) else { continue }
        Scalar.add(factor, outputGradient.buffer, to: gradient)
      }
      gradients.pass(outputGradient, to: [a, b].indices.filter { [a, b][$0] == 1 })
    }
  }

  package func add(_ x: Value<Scalar>, _ y: Value<Scalar>) -> Value<Scalar> {
    combine(1, x, 1, y)
  }

  /// Elementwise product of equal shapes.
  package func multiply(_ x: Value<Scalar>, _ y: Value<Scalar>) -> Value<Scalar> {
    precondition(x.shape == y.shape, "multiplying \(x.shape) and \(y.shape)")
    let output = result(x.shape)
    Scalar.multiplyElements(x.tensor.buffer, y.tensor.buffer, into: output.buffer)
    return record(output, from: [x, y]) { outputGradient, gradients in
      for (index, factor) in [y, x].enumerated() {
        guard let gradient = gradients.place(of: index) else { continue }
        if gradient.accumulates {
          Scalar.addProduct(outputGradient.buffer, factor.tensor.buffer, to: gradient.buffer)
        } else {
          Scalar.multiplyElements(
            outputGradient.buffer, factor.tensor.buffer, into: gradient.buffer)
        }
      }
    }
  }

  /// Sample b of the result is `weights[b]` · x[b] + `otherWeights[b]` · y[b].
  ///
  /// The weights are constants: x_t = (1 − t) x₀ + t ε of flow matching, one time per sample.
  package func combineSamples(
    _ weights: [Double], _ x: Value<Scalar>, _ otherWeights: [Double], _ y: Value<Scalar>
  ) -> Value<Scalar> {
    let sampleCount = x.shape.first ?? 0
    precondition(
      x.shape == y.shape && weights.count == sampleCount && otherWeights.count == sampleCount,
      "\(weights.count) and \(otherWeights.count) weights for \(x.shape) and \(y.shape)")
    let output = result(x.shape)
    let width = sampleCount == 0 ? 0 : x.tensor.count / sampleCount
    func sample(_ buffer: Buffer<Scalar>, _ index: Int) -> Buffer<Scalar> {
      buffer[(index * width)..<((index + 1) * width)]
    }
    for b in 0..<sampleCount {
      Scalar.combine(
        Scalar(weights[b]), sample(x.tensor.buffer, b), Scalar(otherWeights[b]),
        sample(y.tensor.buffer, b), into: sample(output.buffer, b))
    }
    return record(output, from: [x, y]) { outputGradient, gradients in
      for (index, factors) in [weights, otherWeights].enumerated() {
        guard let gradient = gradients.addend(of: index) else { continue }
        for b in 0..<sampleCount {
          Scalar.add(
            Scalar(factors[b]), sample(outputGradient.buffer, b), to: sample(gradient, b))
        }
      }
    }
  }
}
