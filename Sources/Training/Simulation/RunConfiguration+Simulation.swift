// What a simulation takes from a configuration.

package import DenseKernels
package import MeshLayout
package import Planning

extension RunConfiguration {
  /// Degrees of the mesh that are not left to the coordinator.
  package var fixedDegrees: [Axis: Int] {
    var degrees: [Axis: Int] = [:]
    let given: [(axis: Axis, degree: Degree)] = [
      (.dp, mesh.dp), (.zero, mesh.zero), (.ring, mesh.ring), (.sp, mesh.sp), (.tp, mesh.tp),
      (.stages, mesh.stages),
    ]
    for (axis, degree) in given {
      if case .fixed(let count) = degree { degrees[axis] = count }
    }
    return degrees
  }

  /// The stage of ZeRO that is not left to the coordinator.
  package var fixedZeroStage: Int? {
    if case .fixed(let stage) = mesh.zeroStage { stage } else { nil }
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
