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
  /// How sums over tokens are made where their bits must not depend on who shares them; nil: as is fastest.
  let canonical: (any CanonicalSums<Scalar>)?
  /// In how many slices sums over heads, hidden units and columns of modulations are made, over all ranks; nil: at once.
  let slices: Int?
  /// How gradients are summed over the rows of the layers here.
  let sums: RowSums
  let path: String

  init(
    _ tape: Tape<Scalar>, _ parameters: ParameterSet<Scalar>, adapter: Adapter<Scalar>? = nil,
    tensor: (any TensorParallel<Scalar>)? = nil, extent: UnitExtent = .whole,
    canonical: (any CanonicalSums<Scalar>)? = nil, slices: Int? = nil, path: String = ""
  ) {
    self.init(
      tape, parameters, adapter: adapter, tensor: tensor, extent: extent, canonical: canonical,
      slices: slices, sums: canonical?.ofShared ?? .whole, path: path)
  }

  private init(
    _ tape: Tape<Scalar>, _ parameters: ParameterSet<Scalar>, adapter: Adapter<Scalar>?,
    tensor: (any TensorParallel<Scalar>)?, extent: UnitExtent,
    canonical: (any CanonicalSums<Scalar>)?, slices: Int?, sums: RowSums, path: String
  ) {
    self.tape = tape
    self.parameters = parameters
    self.adapter = adapter
    self.tensor = tensor
    self.extent = extent
    self.canonical = canonical
    self.slices = slices
    self.sums = sums
    self.path = path
  }

  private func changed(
    tape: Tape<Scalar>? = nil, sums: RowSums? = nil, path: String? = nil
  ) -> LayerScope {
    LayerScope(
      tape ?? self.tape, parameters, adapter: adapter, tensor: tensor, extent: extent,
      canonical: canonical, slices: slices, sums: sums ?? self.sums, path: path ?? self.path)
  }

  /// The scope of a submodule.
  func callAsFunction(_ name: String) -> LayerScope { changed(path: full(name)) }

  /// The same place on another tape.
  func on(_ tape: Tape<Scalar>) -> LayerScope { changed(tape: tape) }

  /// The same place with other sums over rows.
  func with(_ sums: RowSums) -> LayerScope { changed(sums: sums) }

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
      bias: hasBias ? parameters[module + ".bias"] : nil, update: adapter?.update(of: module),
      sums: sums)
  }

  /// The sum of row-parallel layers, made in slices.
  /// - Parameter ownSums: gradients of what all ranks have.
  func rowLinear(
    _ layers: [(name: String, parts: [Value<Scalar>])], hasBias: Bool = true,
    _ slices: WeightSlices<Scalar>, ownSums: RowSums
  ) -> Value<Scalar> {
    tape.rowLinear(
      layers.map { layer in
        let module = full(layer.name)
        return RowLayer(
          parts: layer.parts, weight: parameters[module + ".weight"],
          bias: hasBias ? parameters[module + ".bias"] : nil, update: adapter?.update(of: module))
      }, slices, sums: sums, ownSums: ownSums)
  }

  /// Two linear layers with an activation between them.
  func mlp(
    _ first: String, _ activation: Activation, _ second: String, _ x: Value<Scalar>
  ) -> Value<Scalar> {
    linear(second, tape.apply(activation, to: linear(first, x)))
  }

  /// LayerNorm with a learned gain and shift.
  func layerNorm(_ name: String, _ x: Value<Scalar>, epsilon: Double) -> Value<Scalar> {
    precondition(!sums.isInBlocks, "an affine norm over blocks of tokens")
    func use(_ tensor: String) -> Value<Scalar> {
      tape.use(parameter(name + tensor), isCounted: sums.isCounted)
    }
    return tape.layerNorm(
      x, scale: use(".weight"), shift: use(".bias"), scaleOffset: 0, epsilon: epsilon)
  }

  /// LayerNorm whose scale and shift (in this order, unlike in a block's `Modulation`) are a linear
  /// layer of the condition.
  /// - Parameters:
  ///   - segments: of x, all ranks together; needed for canonical sums.
  ///   - isCut: whether ranks that cut weights have cut this layer, which is one of a block then.
  /// - Source: diffusers, `AdaLayerNormContinuous`.
  func modulatedLayerNorm(
    _ name: String, _ x: Value<Scalar>, condition: Value<Scalar>, epsilon: Double,
    _ segments: [Int] = [], isCut: Bool = false
  ) -> Value<Scalar> {
    let columns = isCut ? columns(name, condition) : shared(linear(name, condition))
    let parts = tape.chunks(columns, count: 2)
    return tape.layerNorm(
      x, scale: parts[0], shift: parts[1], epsilon: epsilon, sums: over(segments).sums)
  }

  private func full(_ name: String) -> String {
    path.isEmpty ? name : name.isEmpty ? path : path + "." + name
  }
}
