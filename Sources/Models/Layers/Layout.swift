// Names, shapes and starts of the parameters of one module, layer by layer.

import Autodiff
import Tensors

/// Collects the parameters of one module.
struct Layout {
  private let path: String
  private(set) var specifications: [ParameterSpecification] = []

  init(_ path: String) { self.path = path }

  /// Weight and bias of a linear or patch layer; the first size is the output width.
  /// - Parameters:
  ///   - cut: of the weight; a bias is cut with the rows, and whole otherwise.
  ///   - cutsOutputs: whether outputs are cut as well as inputs (`innerLinear`), and so the bias.
  func linear(
    _ name: String, _ shape: [Int], zero: Bool = false, cut: ParameterCut = .whole,
    cutsOutputs: Bool = false
  ) -> Layout {
    let inputWidth = shape.dropFirst().reduce(1, *)
    let start: Initialization =
      zero ? .zeros : .uniform(bound: 1 / Double(inputWidth).squareRoot())
    return adding([
      ParameterSpecification(full(name, "weight"), shape, start, cut: cut),
      ParameterSpecification(
        full(name, "bias"), [shape[0]], start,
        cut: cut == .rows || cutsOutputs ? .rows : .whole),
    ])
  }

  func linears(_ names: [String], _ shape: [Int], cut: ParameterCut = .whole) -> Layout {
    names.reduce(self) { $0.linear($1, shape, cut: cut) }
  }

  func layerNorm(_ name: String, _ width: Int) -> Layout {
    gain(name, width)
      .adding([ParameterSpecification(full(name, "bias"), [width], .zeros)])
  }

  func gain(_ name: String, _ width: Int) -> Layout {
    adding([ParameterSpecification(full(name, "weight"), [width], .ones)])
  }

  /// The parameters of a transformer block, which come and go together.
  var blockSpecifications: [ParameterSpecification] {
    specifications.map {
      var specification = $0
      specification.block = path
      return specification
    }
  }

  /// The parameters of layers behind the blocks.
  var outputSpecifications: [ParameterSpecification] {
    specifications.map {
      var specification = $0
      specification.isOutput = true
      return specification
    }
  }

  private func full(_ name: String, _ tensor: String) -> String {
    [path, name, tensor].filter { !$0.isEmpty }.joined(separator: ".")
  }

  private func adding(_ more: [ParameterSpecification]) -> Layout {
    var copy = self
    copy.specifications += more
    return copy
  }
}

extension ParameterSet {
  /// - Precondition: every specification is met, in its shape; the set may hold more.
  func require(_ specifications: [ParameterSpecification]) {
    for specification in specifications {
      let shape = self[specification.name].shape
      precondition(
        shape == specification.shape,
        "\(specification.name) is \(shape), the configuration says \(specification.shape)")
    }
  }
}
