// Gradients that tests choose, brought in as a backward pass does.

import Autodiff
import Tensors

extension ParameterSet where Scalar == Float {
  /// Adds `flat` to the bound gradients, block by block; what lies in the padding is left out.
  func contribute(_ flat: [Float], arena: Arena) {
    let tape = Tape<Float>(arena: arena, role: .generator)
    var results: [(value: Value<Float>, seed: Tensor<Float>)] = []
    for unit in layout.units {
      results += tape.inBlock(unit.block, of: [self], isDifferentiated: true) {
        unit.entries.map { index in
          let entry = layout.entries[index]
          let seed = Tensor(
            Array(flat[entry.range]), shape: entry.shape, in: arena,
            booking: Booking(.common, .activations))
          let value = tape.use(parameters[index])
          let result = tape.record(value.tensor, from: [value]) { gradient, inputs in
            inputs.pass(gradient, to: [0])
          }
          return (result, seed)
        }
      }
    }
    tape.backward(results)
  }

  /// All elements, whoever holds them.
  /// - Collective: over the ranks that hold them together.
  var wholeVector: [Float] {
    var result = [Float](repeating: 0, count: layout.count)
    readUnits { entries in
      for index in entries {
        result.replaceSubrange(layout.entries[index].range, with: parameters[index].value.array)
      }
    }
    return result
  }
}
