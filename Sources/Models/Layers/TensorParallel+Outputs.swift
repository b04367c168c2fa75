// Layers with cut inputs that are more than one row-parallel layer by itself.

import Autodiff
import DenseKernels

extension LayerScope {
  /// A layer between two that are cut: own inputs → own outputs, of the group's tokens. Its weight holds columns,
  /// its bias the outputs' part.
  func innerLinear(_ name: String, _ x: Value<Scalar>) -> Value<Scalar> {
    guard let tensor else { return linear(name, x) }
    return tape.add(
      tensor.scatterColumns(linear(name, parts: [x], hasBias: false), on: tape),
      bias: parameter(name + ".bias"))
  }

  /// The sum of row-parallel layers: what they give is summed here before it travels, once for all.
  func rowLinears(
    _ layers: [(name: String, x: Value<Scalar>)], _ segments: [Int]
  ) -> Value<Scalar> {
    func sum(_ values: [Value<Scalar>]) -> Value<Scalar> {
      values.dropFirst().reduce(values[0]) { tape.add($0, $1) }
    }
    guard let tensor else { return sum(layers.map { linear($0.name, $0.x) }) }
    let partial = sum(layers.map { linear($0.name, parts: [$0.x], hasBias: false) })
    return layers.reduce(tensor.scatterSum(partial, segments: segments, on: tape)) {
      tape.add($0, bias: parameter($1.name + ".bias"))
    }
  }
}
