// A place in a network: the tape to record on, the parameters, the adapter, and the path of the module
// whose layers are being run. Layers are found by their names, so a forward pass reads as the module.

import Autodiff
import DenseKernels
import Tensors

struct LayerScope<Scalar: KernelScalar> {
  let tape: Tape<Scalar>
  let parameters: ParameterSet<Scalar>
  let adapter: Adapter<Scalar>?
  /// Who has the other parts of the weights of blocks; nil: nobody, they are whole.
  let tensor: (any TensorParallel<Scalar>)?
  /// How much of the parameters blocks compute with.
  let extent: UnitExtent
  let path: String

  init(
    _ tape: Tape<Scalar>, _ parameters: ParameterSet<Scalar>, adapter: Adapter<Scalar>? = nil,
    tensor: (any TensorParallel<Scalar>)? = nil, extent: UnitExtent = .whole, path: String = ""
  ) {
    self.tape = tape
    self.parameters = parameters
    self.adapter = adapter
    self.tensor = tensor
    self.extent = extent
    self.path = path
  }

  /// The scope of a submodule.
  func callAsFunction(_ name: String) -> LayerScope {
    LayerScope(
      tape, parameters, adapter: adapter, tensor: tensor, extent: extent, path: full(name))
  }

  /// The same place on another tape.
  func on(_ tape: Tape<Scalar>) -> LayerScope {
    LayerScope(tape, parameters, adapter: adapter, tensor: tensor, extent: extent, path: path)
  }

  func parameter(_ name: String) -> Parameter<Scalar> { parameters[full(name)] }

  /// Runs a block by the name of its parameters; with `recompute` it stores only its inputs and runs
  /// again on the way back.
  func run(
    _ block: String, _ inputs: [Value<Scalar>], recompute: Bool,
    _ body: @escaping (Tape<Scalar>, [Value<Scalar>]) -> [Value<Scalar>]
  ) -> [Value<Scalar>] {
    let sets = [parameters] + (adapter.map { [$0.set.parameters] } ?? [])
    let isDifferentiated =
      sets.contains(where: \.isTrainable) || inputs.contains(where: \.isTracked)
    func run(_ tape: Tape<Scalar>, _ inputs: [Value<Scalar>]) -> [Value<Scalar>] {
      tape.inBlock(block, of: sets, extent: extent, isDifferentiated: isDifferentiated) {
        body(tape, inputs)
      }
    }
    // Where nothing wants a gradient, nothing would be stored anyway.
    guard recompute && isDifferentiated else { return run(tape, inputs) }
    return tape.recomputing(inputs, run)
  }

  func linear(_ name: String = "", _ x: Value<Scalar>) -> Value<Scalar> {
    linear(name, parts: [x])
  }

  /// A linear layer of inputs side by side.
  func linear(
    _ name: String, parts: [Value<Scalar>], hasBias: Bool = true
  ) -> Value<Scalar> {
    let module = full(name)
    return tape.linear(
      parts: parts, weight: parameters[module + ".weight"],
      bias: hasBias ? parameters[module + ".bias"] : nil, update: adapter?.update(of: module))
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

  /// LayerNorm whose scale and shift (in this order, unlike in a block's `Modulation`) are a linear
  /// layer of the condition.
  /// - Source: diffusers, `AdaLayerNormContinuous`.
  func modulatedLayerNorm(
    _ name: String, _ x: Value<Scalar>, condition: Value<Scalar>, epsilon: Double
  ) -> Value<Scalar> {
    let parts = tape.chunks(linear(name, condition), count: 2)
    return tape.layerNorm(x, scale: parts[0], shift: parts[1], epsilon: epsilon)
  }

  private func full(_ name: String) -> String {
    path.isEmpty ? name : name.isEmpty ? path : path + "." + name
  }
}
