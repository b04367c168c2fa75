// A place in a network: the tape to record on, the parameters, the adapter, and the path of the module
// whose layers are being run. Layers are found by their names, so a forward pass reads as the module.

import Autodiff
import DenseKernels
import Tensors

struct LayerScope<Scalar: KernelScalar> {
  let tape: Tape<Scalar>
  let parameters: ParameterSet<Scalar>
  let adapter: Adapter<Scalar>?
  let path: String

  init(
    _ tape: Tape<Scalar>, _ parameters: ParameterSet<Scalar>, adapter: Adapter<Scalar>? = nil,
    path: String = ""
  ) {
    self.tape = tape
    self.parameters = parameters
    self.adapter = adapter
    self.path = path
  }

  /// The scope of a submodule.
  func callAsFunction(_ name: String) -> LayerScope {
    LayerScope(tape, parameters, adapter: adapter, path: full(name))
  }

  /// The same place on another tape.
  func on(_ tape: Tape<Scalar>) -> LayerScope {
    LayerScope(tape, parameters, adapter: adapter, path: path)
  }

  func parameter(_ name: String) -> Parameter<Scalar> { parameters[full(name)] }

  /// Whether anything in here may want a gradient.
  var isTrainable: Bool {
    parameters.gradients != nil || adapter?.set.parameters.gradients != nil
  }

  func linear(_ name: String = "", _ x: Value<Scalar>) -> Value<Scalar> {
    linear(name, parts: [x])
  }

  /// A linear layer of inputs side by side.
  func linear(_ name: String, parts: [Value<Scalar>]) -> Value<Scalar> {
    let module = full(name)
    return tape.linear(
      parts: parts, weight: parameters[module + ".weight"], bias: parameters[module + ".bias"],
      update: adapter?.update(of: module))
  }

  /// Two linear layers with an activation between them.
  func mlp(
    _ first: String, _ activation: Activation, _ second: String, _ x: Value<Scalar>
  ) -> Value<Scalar> {
    linear(second, tape.apply(activation, to: linear(first, x)))
  }

  /// LayerNorm with a learned gain and shift.
  func layerNorm(_ name: String, _ x: Value<Scalar>, epsilon: Double) -> Value<Scalar> {
    tape.layerNorm(
      x, scale: tape.use(parameter(name + ".weight")), shift: tape.use(parameter(name + ".bias")),
      scaleOffset: 0, epsilon: epsilon)
  }

  private func full(_ name: String) -> String {
    path.isEmpty ? name : name.isEmpty ? path : path + "." + name
  }
}
