// Layers with cut inputs that are more than one row-parallel layer by itself.

import Autodiff
import DenseKernels

extension LayerScope {
  /// A layer between two that are cut: own inputs → own outputs, of the group's tokens. Its weight holds columns,
  /// its bias the outputs' part.
  ///
  /// With slices the sum is that of a row-parallel layer, for own tokens, whose columns are then dealt out: so the low-rank
  /// update's upper factor, which all ranks have, meets own tokens only, for 1 / degree more bytes.
  func innerLinear(
    _ name: String, _ x: Value<Scalar>, _ segments: [Int]
  ) -> Value<Scalar> {
    if let slices = tokenSlices(x.shape[0], segments) {
      let own = rowLinear(
        [(name, [x])], hasBias: false, slices, ownSums: over(segments).sums)
      return tape.add(
        tensor?.turnedToColumns(own, segments: segments, on: tape) ?? own,
        bias: parameter(name + ".bias"), sums: sums)
    }
    guard let tensor else { return linear(name, x) }
    return tape.add(
      tensor.scatterColumns(linear(name, parts: [x], hasBias: false), on: tape),
      bias: parameter(name + ".bias"))
  }

  /// The sum of row-parallel layers: what they give is summed here before it travels, once for all.
  func rowLinears(
    _ layers: [(name: String, x: Value<Scalar>)], _ segments: [Int]
  ) -> Value<Scalar> {
    if let slices = tokenSlices(layers[0].x.shape[0], segments) {
      return rowLinear(
        layers.map { ($0.name, [$0.x]) }, slices, ownSums: over(segments).sums)
    }
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
