// The trainable factors of a LoRA adapter, named as PEFT names them. They stay beside the weights they
// adapt: the scale is chosen per forward pass, so real and fake share one W (spec §1.2, eqs. 7 and 8).
//
// Source: LoRA (2106.09685) §4.1; PEFT, `LoraLayer`.

package import Autodiff
import Basics
package import DenseKernels
package import Tensors

/// A (r × K) and B (D × r) of every adapted linear layer.
package final class AdapterSet<Scalar: KernelScalar> {
  package let configuration: AdapterConfiguration
  package let parameters: ParameterSet<Scalar>
  private let factors: [String: (down: Parameter<Scalar>, up: Parameter<Scalar>)]

  /// Allocates the factors, zeroed; `initialize(seed:)` draws A, or a folder fills them.
  /// - Precondition: each target is a linear layer among `modelSpecifications`.
  package convenience init(
    _ configuration: AdapterConfiguration, adapting modelSpecifications: [ParameterSpecification],
    in arena: Arena, role: MemoryRole
  ) {
    self.init(
      configuration,
      parameters: ParameterSet(
        configuration.parameterSpecifications(adapting: modelSpecifications), in: arena, role: role)
    )
  }

  /// - Precondition: the set was made from `configuration.parameterSpecifications(adapting:)`.
  package init(_ configuration: AdapterConfiguration, parameters: ParameterSet<Scalar>) {
    self.configuration = configuration
    self.parameters = parameters
    factors = Dictionary(
      uniqueKeysWithValues: configuration.targets.map { target in
        let names = AdapterConfiguration.factorNames(of: target)
        return (target, (down: parameters[names.down], up: parameters[names.up]))
      })
  }

  /// A uniform in ±1/√K (PEFT's Kaiming start with a = √5), B zero: the update starts at zero.
  package func initialize(seed: UInt64) {
    parameters.initialize(seed: seed, purpose: .adapterInitialization)
  }

  /// The update of a module at a role's weight; nil if the module is not adapted.
  func update(of module: String, weight: Double) -> LowRankUpdate<Scalar>? {
    factors[module].map {
      LowRankUpdate(down: $0.down, up: $0.up, scale: weight * configuration.scaling)
    }
  }
}

/// An adapter at the weight of a role: alpha_strong for the fake DiT, alpha_weak for the weak real one.
package struct Adapter<Scalar: KernelScalar> {
  package let set: AdapterSet<Scalar>
  /// Multiplies (a/r) B A; 0 runs the base model's own code path.
  package let weight: Double

  package init(_ set: AdapterSet<Scalar>, weight: Double) {
    self.set = set
    self.weight = weight
  }

  func update(of module: String) -> LowRankUpdate<Scalar>? {
    set.update(of: module, weight: weight)
  }
}

extension AdapterConfiguration {
  /// PEFT's names of a module's factors.
  static func factorNames(of module: String) -> (down: String, up: String) {
    let path = "base_model.model.\(module)"
    return ("\(path).lora_A.weight", "\(path).lora_B.weight")
  }

  /// The adapter's parameters; nothing is allocated.
  /// - Precondition: each target is a linear layer among `modelSpecifications`.
  package func parameterSpecifications(
    adapting modelSpecifications: [ParameterSpecification]
  ) -> [ParameterSpecification] {
    precondition(rank > 0, "an adapter of rank \(rank)")
    let layers = Dictionary(uniqueKeysWithValues: modelSpecifications.map { ($0.name, $0) })
    return targets.flatMap { target -> [ParameterSpecification] in
      guard let layer = layers[target + ".weight"], layer.shape.count == 2 else {
        preconditionFailure("there is no linear layer \(target) to adapt")
      }
      let (outputWidth, inputWidth) = (layer.shape[0], layer.shape[1])
      let names = Self.factorNames(of: target)
      let start = Initialization.uniform(bound: 1 / Double(inputWidth).squareRoot())
      return [
        ParameterSpecification(
          names.down, [rank, inputWidth], start, block: layer.block,
          cut: layer.cut == .rows ? .whole : layer.cut),
        ParameterSpecification(
          names.up, [outputWidth, rank], .zeros, block: layer.block,
          cut: layer.cut == .rows ? .rows : .whole),
      ]
    }
  }
}
