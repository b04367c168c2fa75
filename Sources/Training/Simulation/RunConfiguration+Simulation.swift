// What a simulation takes from a configuration.

package import DenseKernels
import Exchange
import MeshLayout
package import Planning

extension RunConfiguration {
  /// What a search for layouts keeps: all degrees, stages and roles that are not left to the coordinator, and the rules
  /// by which the worker takes a configuration.
  package func layoutRules(_ sizes: WorkloadSizes) -> LayoutRules {
    var rules = LayoutRules()
    rules.overlaps = exchange.overlap == .on
    rules.fixed = Self.fixed([
      .dp: mesh.dp, .zero: mesh.zero, .ring: mesh.ring, .sp: mesh.sp, .tp: mesh.tp,
      .stages: mesh.stages,
    ])
    rules.fixedZeroStage = mesh.zeroStage.fixed.flatMap(ZeroStage.init(rawValue:))
    rules.colocatesRoles = mesh.placement != .split
    rules.splitsRoles = mesh.placement != .colocated
    rules.generatorRankCount = mesh.generatorRanks.fixed
    rules.generatorDegrees = Self.fixed([
      .dp: mesh.generatorDp, .ring: mesh.generatorRing, .sp: mesh.generatorSp,
      .tp: mesh.generatorTp, .stages: mesh.generatorStages,
    ])
    rules.generatorZeroStage = mesh.generatorZeroStage.fixed.flatMap(ZeroStage.init(rawValue:))
    rules.allows = { runs($0, microbatchCount: $1, sizes) }
    return rules
  }

  private static func fixed(_ degrees: [Axis: Degree]) -> [Axis: Int] {
    degrees.compactMapValues(\.fixed)
  }

  /// Whether the worker takes this configuration with the mesh of a layout, which may also be one of stages that it
  /// does not have.
  package func runs(
    _ layout: SimulatedLayout, microbatchCount: Int, _ sizes: WorkloadSizes
  ) -> Bool {
    var configuration = self
    configuration.batch.microbatches = microbatchCount
    let shape = layout.shape
    (configuration.mesh.dp, configuration.mesh.zero) = (.fixed(shape[.dp]), .fixed(shape[.zero]))
    (configuration.mesh.ring, configuration.mesh.sp) = (.fixed(shape[.ring]), .fixed(shape[.sp]))
    (configuration.mesh.tp, configuration.mesh.stages) = (
      .fixed(shape[.tp]), .fixed(shape[.stages])
    )
    if let ranks = shape.generatorRanks {
      configuration.mesh.generatorTp = .fixed(ranks.shape[.tp])
      configuration.mesh.generatorStages = .fixed(ranks.shape[.stages])
    }
    switch layout.schedule {
    case .gPipe: configuration.mesh.schedule = .gPipe
    default: configuration.mesh.schedule = .oneForwardOneBackward
    }
    let search = configuration.meshSearch(
      rankCount: shape.rankCount, headCount: sizes.network.headCount,
      mlpWidth: sizes.network.mlpWidth, blockCount: sizes.network.blockCount)
    return search.allows(shape) && configuration.validate().isEmpty
  }

  /// How products read their operands; `auto` as on this machine.
  package var probedPrecision: ProductPrecision {
    switch compute.precision {
    case .fp32: .float32
    case .bf16: .bfloat16
    case .auto: ProductPrecision.bfloat16.isFast ? .bfloat16 : .float32
    }
  }

  /// How products read their operands; `auto` is bf16 on paper.
  package var simulatedPrecision: SimulatedPrecision {
    compute.precision == .fp32 ? .fp32 : .bf16
  }
}

extension ProductPrecision {
  /// Its name in the planner.
  package var simulated: SimulatedPrecision { self == .float32 ? .fp32 : .bf16 }
}

extension RunConfiguration.Degree {
  fileprivate var fixed: Int? { if case .fixed(let count) = self { count } else { nil } }
}
