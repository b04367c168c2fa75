// Gradients that tests choose, brought in as a backward pass does.

import Autodiff
import Tensors

extension ParameterSet where Scalar == Float {
  /// Adds `flat` to the bound gradients; what lies in the padding is left out.
  func contribute(_ flat: [Float], arena: Arena) {
    let tape = Tape<Float>(arena: arena, role: .generator)
    tape.backward(
      zip(parameters, layout.entries).map { parameter, entry in
        let seed = Tensor(
          Array(flat[entry.range]), shape: entry.shape, in: arena,
          booking: Booking(.common, .activations))
        return (tape.use(parameter), seed)
      })
  }
}
