// What a simulation takes from a configuration.

package import MeshLayout
package import Planning

extension RunConfiguration {
  /// Degrees of the mesh that are not left to the coordinator.
  package var fixedDegrees: [Axis: Int] {
    var degrees: [Axis: Int] = [:]
    for (axis, degree) in [(Axis.zero, mesh.zero), (.sp, mesh.sp)] {
      if case .fixed(let count) = degree { degrees[axis] = count }
    }
    return degrees
  }

  /// How products read their operands; `auto` is bf16 on paper.
  package var simulatedPrecision: SimulatedPrecision {
    compute.precision == .fp32 ? .fp32 : .bf16
  }
}
