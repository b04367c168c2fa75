import Autodiff
import Basics
import DenseKernels
import Models
import Tensors
import TestSupport
import Testing

struct DiscriminatorHeadTests {
  @Test func `its logits are the formula's and its gradients those of finite differences`() {
    let arena = Arena()
    let specifications = DiscriminatorHead<Double>.specifications(featureWidth: 5, hiddenWidth: 3)
    #expect(specifications.map(\.shape) == [[5], [5], [3, 5], [3], [1, 3], [1]])
    let set = ParameterSet<Double>(specifications, in: arena, role: .fake)
    set.initialize(seed: 3)
    let gradients = Buffer<Double>(zeroed: set.layout.count)
    set.bindGradients(to: gradients)
    let head = DiscriminatorHead(parameters: set)
    let features = Tensor<Double>(
      RandomStream(seed: 2, purpose: .tests).normals(count: 10).map { Double($0) },
      shape: [2, 5], in: arena, booking: Booking(.fake, .activations))
    let weights = Tensor<Double>(
      [2, -1], shape: [2], in: arena, booking: Booking(.fake, .activations))
    func logits(recording: Bool) -> (Tape<Double>, Value<Double>, Value<Double>) {
      let tape = Tape<Double>(arena: arena, role: .fake, isRecording: recording)
      let input = tape.input(features)
      return (tape, input, head.forward(tape: tape, features: input))
    }

    let (tape, input, output) = logits(recording: true)
    #expect(output.shape == [2])
    #expect(
      difference(output.tensor.array, plainLogits(set, features.array), absolute: 1e-12) == nil)
    tape.backward([(output, weights)])
    for (buffer, gradient) in [
      (set.values, gradients), (features.buffer, tape.gradient(of: input)?.buffer ?? gradients),
    ] {
      let slopes = (0..<buffer.count).map { index in
        let kept = buffer[index]
        defer { buffer[index] = kept }
        func loss(_ step: Double) -> Double {
          buffer[index] = kept + step
          return Double.dot(logits(recording: false).2.tensor.buffer, weights.buffer)
        }
        return (loss(1e-5) - loss(-1e-5)) / 2e-5
      }
      // Step 1e-5: truncation and rounding are both near 1e-9.
      #expect(difference(gradient.array, slopes, absolute: 1e-7, relative: 1e-7) == nil)
    }
  }

  /// LayerNorm, linear, SiLU, linear, as plain loops.
  func plainLogits(_ set: ParameterSet<Double>, _ features: [Double]) -> [Double] {
    let values = set.parameters.map(\.value.array)
    return (0..<2).map { sample in
      let mean = Array(features[sample * 5..<(sample + 1) * 5])
      let center = mean.reduce(0, +) / 5
      let variance = mean.reduce(0) { $0 + ($1 - center) * ($1 - center) } / 5
      let normed = (0..<5).map {
        (mean[$0] - center) / (variance + 1e-6).squareRoot() * values[0][$0] + values[1][$0]
      }
      let hidden = (0..<3).map { row in
        (0..<5).reduce(values[3][row]) { $0 + values[2][row * 5 + $1] * normed[$1] }
      }
      return hidden.enumerated().reduce(values[5][0]) {
        $0 + values[4][$1.offset] * $1.element / (1 + Self.exponential(-$1.element))
      }
    }
  }

  /// e^x by its series, so that the test needs no kernel.
  static func exponential(_ x: Double) -> Double {
    (1...40).reduce((sum: 1.0, term: 1.0)) { partial, n in
      let term = partial.term * x / Double(n)
      return (partial.sum + term, term)
    }.sum
  }
}
