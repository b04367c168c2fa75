// Saves and loads the whole state of a run over its ranks (contract 4.7).
//
// Every rank writes the range of each network that it owns, under logical names, so that any number
// of ranks can load it: `generator.<name>`, with `.first_moment`, `.second_moment`, `.ema` behind it.

package import Autodiff
import Checkpoints
import DenseKernels
package import Foundation
import MeshLayout
import ProcessMesh
import Tensors
package import VideoData

package struct CheckpointSession {
  /// A network of the checkpoint; frozen ones have no optimizer, those of other ranks no weights.
  package struct Part {
    package let prefix: String
    package let layout: FlatLayout
    /// Nil where this rank has no part of it.
    package let weights: ShardedParameters?
    package let optimizer: ShardedOptimizer?

    package init(_ prefix: String, _ weights: ShardedParameters) {
      self.init(prefix, weights.parameters.layout, weights, nil)
    }

    package init(_ prefix: String, _ optimizer: ShardedOptimizer) {
      self.init(prefix, optimizer.parameters.layout, optimizer.weights, optimizer)
    }

    /// A network that other ranks hold.
    package init(_ prefix: String, elsewhere specifications: [ParameterSpecification]) {
      self.init(prefix, FlatLayout(specifications), nil, nil)
    }

    private init(
      _ prefix: String, _ layout: FlatLayout, _ weights: ShardedParameters?,
      _ optimizer: ShardedOptimizer?
    ) {
      self.prefix = prefix
      self.layout = layout
      self.weights = weights
      self.optimizer = optimizer
    }
  }

  private let context: RunContext
  private let store: CheckpointStore
  private let data: DataFingerprint
  private let origin: String?

  /// - Parameters:
  ///   - data: what the run learns from.
  ///   - origin: the checkpoint that it was told to start from, if it was.
  package init(_ context: RunContext, data: DataFingerprint, origin: String? = nil) {
    self.context = context
    self.data = data
    self.origin = origin
    store = CheckpointStore(context.folder.checkpoints)
  }

  /// Commits a checkpoint of `phase` after `phaseStep` of its steps, then drops old ones unless updates
  /// are being skipped: the older ones may be the last good ones then.
  ///
  /// - Throws: `JobError` on every rank if any failed (a full disk, say); older checkpoints stay.
  /// - Collective: over the context's transport.
  package func save(phase: String, phaseStep: Int, globalStep: Int, parts: [Part]) throws {
    let writer = store.writer(step: globalStep)
    let transport = context.transport
    try transport.onRoot {
      // Only rank 0 writes metrics; a checkpoint must not go beyond their last line.
      try context.throwFailure()
      try writer.begin()
    }
    let list = try transport.onEveryRank {
      try writer.writePieces(
        parts.flatMap(pieces(of:)), writer: transport.rank, of: transport.size)
    }
    let lists = try transport.allGather(value: list)
    var counters = ["phaseStep": phaseStep]
    // What this rank does not hold others count.
    for updates in try transport.allGather(value: Self.updateCounts(parts)) {
      counters.merge(updates) { first, _ in first }
    }
    try transport.onRoot {
      try writer.commit(
        lists,
        Manifest.Fields(
          step: globalStep, phase: phase, counters: counters,
          configuration: context.configuration.yaml,
          mesh: context.shape.description, libraryVersions: Version.libraries,
          modelFingerprint: Self.fingerprint(parts), dataFingerprint: data.text, origin: origin))
      if context.isSkipping { return }
      _ = try store.prune(keep: context.configuration.checkpoint.keep, newest: globalStep)
    }
  }

  /// Fills all parts from a checkpoint.
  ///
  /// - Throws: `JobError`: `wrongModel` problems are the configuration's.
  /// - Collective: over the context's transport.
  package func load(_ folder: URL, parts: [Part]) throws {
    try context.transport.onEveryRank {
      let reader = try CheckpointReader(opening: folder)
      try reader.requireModel(fingerprint: Self.fingerprint(parts))
      for part in parts {
        guard let weights = part.weights else { continue }
        try readParameters(of: part, weights, from: reader)
        guard let optimizer = part.optimizer else { continue }
        for (suffix, shard) in Self.shards(of: optimizer) {
          for stretch in weights.stretches {
            for (entry, range) in Self.owned(part.layout, stretch.flat) {
              try reader.read(
                "\(part.prefix).\(entry.name)\(suffix)",
                elements: range.relative(to: entry.range.lowerBound),
                into: shard[stretch.local][range.relative(to: stretch.flat.lowerBound)])
            }
          }
        }
        optimizer.updateCount = reader.manifest.fields.counters["updates.\(part.prefix)"] ?? 0
      }
    }
  }

  /// All parameters where the set is whole in memory, else the own ones.
  private func readParameters(
    of part: Part, _ weights: ShardedParameters, from reader: CheckpointReader
  ) throws {
    let (layout, parameters) = (part.layout, weights.parameters)
    guard !parameters.isWhole else {
      for entry in layout.entries {
        try reader.read(
          "\(part.prefix).\(entry.name)", elements: 0..<entry.range.count,
          into: parameters.values[entry.range])
      }
      return
    }
    parameters.dropUnits()
    for stretch in weights.stretches {
      for (entry, range) in Self.owned(layout, stretch.flat) {
        try reader.read(
          "\(part.prefix).\(entry.name)", elements: range.relative(to: entry.range.lowerBound),
          into: weights.own(stretch)[range.relative(to: stretch.flat.lowerBound)])
      }
    }
  }

  // MARK: Pieces

  private func pieces(of part: Part) -> [TensorPiece] {
    guard let weights = part.weights else { return [] }
    let layout = part.layout
    let states = part.optimizer.map(Self.shards) ?? []
    return weights.stretches.flatMap { stretch -> [TensorPiece] in
      let own = weights.own(stretch)
      let buffers = [("", own)] + states.map { ($0, $1[stretch.local]) }
      return buffers.flatMap { suffix, elements in
        Self.owned(layout, weights.saved(stretch)).map { entry, range in
          TensorPiece(
            "\(part.prefix).\(entry.name)\(suffix)", shape: entry.shape,
            .elements(range.relative(to: entry.range.lowerBound)),
            elements[range.relative(to: stretch.flat.lowerBound)])
        }
      }
    }
  }

  private static func shards(of optimizer: ShardedOptimizer) -> [(String, Buffer<Float>)] {
    [(".first_moment", optimizer.firstMoment), (".second_moment", optimizer.secondMoment)]
      + (optimizer.ema.map { [(".ema", $0)] } ?? [])
  }

  /// The tensors of which `range` holds a part, with that part of the flat vector.
  private static func owned(
    _ layout: FlatLayout, _ range: Range<Int>
  ) -> [(FlatLayout.Entry, Range<Int>)] {
    layout.entries.compactMap { entry in
      let owned = entry.range.clamped(to: range)
      return owned.isEmpty ? nil : (entry, owned)
    }
  }

  /// By the name of the counter.
  private static func updateCounts(_ parts: [Part]) -> [String: Int] {
    Dictionary(
      uniqueKeysWithValues: parts.compactMap { part in
        part.optimizer.map { ("updates.\(part.prefix)", $0.updateCount) }
      })
  }

  private static func fingerprint(_ parts: [Part]) -> String {
    var shapes: [String: [Int]] = [:]
    for part in parts {
      for entry in part.layout.entries {
        shapes["\(part.prefix).\(entry.name)"] = entry.shape
      }
    }
    return Manifest.fingerprint(of: shapes)
  }
}

extension Range<Int> {
  fileprivate func relative(to origin: Int) -> Range<Int> {
    (lowerBound - origin)..<(upperBound - origin)
  }
}
