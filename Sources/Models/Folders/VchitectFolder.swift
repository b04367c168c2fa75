// Folders of a Vchitect-2.0 transformer: config.json and weights under the released names, loaded without
// conversion.
//
// The released weights hold one tensor that is no parameter, the position table. It is not taken from
// there but compared with the closed form, so that no other table goes unnoticed.

package import Autodiff
import Checkpoints
package import DenseKernels
package import Foundation

/// A folder of a Vchitect-2.0 transformer, open for reading.
package struct VchitectFolder {
  static let positionTableName = "pos_embed.pos_embed"
  /// What a stored position may be off: two roundings to bfloat16 of a number up to 1.
  private static let positionTolerance: Float = 0x1p-8

  package let configuration: VchitectConfiguration
  private let folder: ModelFolder

  /// - Throws: `ModelError` (`wrongModel`, `invalidConfiguration`), or `CheckpointError` with every
  ///   missing, unexpected and misshapen tensor.
  package init(opening url: URL) throws {
    folder = try ModelFolder(opening: url)
    try folder.requireClass(VchitectConfiguration.className)
    configuration = try folder.decodeConfiguration(VchitectConfiguration.self).checked()
    var shapes = Dictionary(
      uniqueKeysWithValues: configuration.parameterSpecifications.map { ($0.name, $0.shape) })
    if folder.tensors[Self.positionTableName] != nil {
      let size = configuration.positionTableSize
      shapes[Self.positionTableName] = [1, size * size, configuration.width]
    }
    try folder.requireTensors(shapes)
    try requirePositionTable()
  }

  /// Fills every parameter of the configuration, from 16-, 32- or 64-bit floats.
  /// - Precondition: the set holds them, in their shapes; it may hold more.
  package func load<Scalar: KernelScalar>(into set: ParameterSet<Scalar>) throws {
    let specifications = configuration.parameterSpecifications
    set.require(specifications)
    for name in specifications.map(\.name) {
      try set[name].value.fill { try folder.read(name, into: $0) }
    }
  }

  private func requirePositionTable() throws {
    guard folder.tensors[Self.positionTableName] != nil else { return }
    let size = configuration.positionTableSize
    let expected = PositionTable(configuration).cropped(rows: size, columns: size, as: Float.self)
    let stored = try folder.floats(Self.positionTableName)
    guard
      let index = stored.indices.first(where: {
        !(abs(stored[$0] - expected[$0]) <= Self.positionTolerance)
      })
    else { return }
    throw ModelError(
      .wrongModel,
      "\(folder.url.path(percentEncoded: false)): element \(index) of \(Self.positionTableName) is "
        + "\(stored[index]), with sample_size \(configuration.sampleSize) and patch_size "
        + "\(configuration.patchSize) it is \(expected[index]); only that table is supported")
  }
}
