// Every byte of a teach step, layout by layout, against formulas that are written out here and ask nobody who plans.
//
// Sources: specification of distributed systems, §3 (ZeRO), 4 (tensors, sequences, rings), 5 (pipelines); of
// Vchitect-2.0, §6.4. Formulas there are of a rank; here they are summed over all ranks, where they are exact
// whatever does not divide.

import Autodiff
import Exchange
import MeshLayout
import Models
import Planning
import Testing

@testable import Training

/// A layout whose bytes are told; `zero` is fixed.
struct TrafficLayout: Sendable, CustomStringConvertible {
  let architecture: Architecture
  var stage = 1
  var dp = 1
  var zero = 1
  var ring = 1
  var sp = 1
  var tp = 1
  var stages = 1
  var plan = SequencePlan.spatial
  var overlap = true

  /// Microbatches of a data-parallel rank: k.
  static let roundCount = 3

  var rankCount: Int { dp * zero * ring * sp * tp * stages }
  var microbatchCount: Int { Self.roundCount * dp * zero }

  var description: String {
    "\(architecture.rawValue): stage \(stage), dp \(dp), zero \(zero), ring \(ring), sp \(sp) \(plan), "
      + "tp \(tp), stages \(stages), overlap \(overlap)"
  }

  /// Tokens that degrees do not divide, several samples, blocks of both kinds.
  var configuration: RunConfiguration {
    TinyRun.configuration {
      $0.model.architecture = architecture
      $0.model.heads = 4
      ($0.model.doubleBlocks, $0.model.singleBlocks) =
        architecture == .vchitect ? (5, 0) : (2, 3)
      $0.model.textTokens = 5
      ($0.batch.microbatches, $0.batch.samples) = (microbatchCount, 2)
      $0.compute.precision = .fp32
      $0.exchange.overlap = overlap ? .on : .off
      $0.mesh.zeroStage = .fixed(stage)
      ($0.mesh.dp, $0.mesh.zero, $0.mesh.ring) = (.fixed(dp), .fixed(zero), .fixed(ring))
      ($0.mesh.sp, $0.mesh.tp, $0.mesh.stages) = (.fixed(sp), .fixed(tp), .fixed(stages))
      ($0.mesh.sequencePlan, $0.mesh.placement) = (plan, .colocated)
    }
  }

  /// The shape that a job takes; there is one.
  func shape() throws -> MeshShape {
    let search = LayoutSearch(
      configuration: configuration, sizes: try WorkloadSizes(configuration), rankCount: rankCount
    ).search()
    #expect(search.problems.isEmpty && search.shapes.count == 1)
    return try #require(search.shapes.first)
  }

  static let all: [TrafficLayout] = Architecture.allCases.flatMap { architecture in
    func layout(_ change: (inout TrafficLayout) -> Void) -> TrafficLayout {
      var layout = TrafficLayout(architecture: architecture)
      change(&layout)
      return layout
    }
    var layouts = [
      layout { $0.zero = 2 },
      layout { $0.zero = 4 },
      layout { $0.dp = 4 },
      layout { ($0.dp, $0.zero) = (2, 2) },
      layout { ($0.stage, $0.zero) = (2, 2) },
      layout { ($0.stage, $0.zero) = (2, 4) },
      layout { ($0.stage, $0.zero) = (3, 2) },
      layout { ($0.stage, $0.zero, $0.overlap) = (3, 4, false) },
      layout { ($0.stage, $0.dp, $0.zero) = (3, 2, 2) },
      layout { $0.sp = 2 },
      layout { ($0.sp, $0.overlap) = (4, false) },
      layout { ($0.stage, $0.zero, $0.sp) = (3, 2, 2) },
      layout { $0.ring = 2 },
      layout { ($0.stage, $0.ring) = (2, 3) },
      layout { ($0.ring, $0.sp) = (2, 2) },
      layout { ($0.stage, $0.tp) = (3, 2) },
      layout { ($0.stage, $0.tp, $0.overlap) = (3, 4, false) },
      layout { ($0.stage, $0.stages) = (3, 2) },
      layout { ($0.stage, $0.stages) = (3, 3) },
      layout { ($0.stage, $0.dp, $0.stages) = (3, 2, 2) },
    ]
    if architecture == .vchitect { layouts.append(layout { ($0.sp, $0.plan) = (2, .all) }) }
    return layouts
  }
}

/// The formulas, in bytes over all ranks.
private struct TrafficFormulas {
  let layout: TrafficLayout
  let configuration: RunConfiguration
  let network: FlatLayout

  init(_ layout: TrafficLayout) {
    self.layout = layout
    configuration = layout.configuration
    network = FlatLayout(
      ConditionedTransformer<Float>.specifications(
        of: configuration.transformer, nullTokenCount: configuration.model.textTokens))
  }

  /// P: the flat vector, in which tensors begin at multiples of 16 elements and units at multiples of 4,096.
  var parameterByteCount: Int { 4 * network.count }

  private var k: Int { TrafficLayout.roundCount }
  /// Ranks that hold a replica together, and those of them that run the same blocks: R.
  private var replicaSize: Int { layout.rankCount / layout.dp }
  private var ranksOfBlock: Int { replicaSize / layout.stages }

  // MARK: Gradients and parameters

  /// Stage 1 sums a step's gradients once, stages 2 and 3 in each of k rounds: (R − 1) P each time. Replicas then
  /// reduce their shards, P of a replica's ranks together, and gather them.
  var gradients: Int {
    let replicas = 2 * (layout.dp - 1) * parameterByteCount
    if layout.tp > 1 { return k * 4 * network.units.indices.reduce(0) { $0 + cutCount(of: $1) } }
    let roundCount = layout.stage == 1 ? 1 : k
    return roundCount * layout.dp * (ranksOfBlock - 1) * parameterByteCount + replicas
  }

  /// Stages 1 and 2 gather what has been updated, (R − 1) P. Stage 3 gathers each block on the way there and back, 2 k,
  /// but for those that stay from one pass to the next: where a pass turns around the last one, between two
  /// rounds the first one, with overlap their neighbors as well, for which it has loaded ahead. What lies
  /// outside of blocks stays for the step.
  var parameters: Int {
    if layout.stage < 3 { return layout.dp * (replicaSize - 1) * parameterByteCount }
    let blocks = network.units.indices.filter { !network.units[$0].block.isEmpty }
    let outside = network.units.indices.filter { network.units[$0].block.isEmpty }
    let staying = layout.overlap ? 2 : 1
    func count(_ units: some Sequence<Int>) -> Int {
      units.reduce(0) {
        let unit = network.units[$1]
        return $0
          + (layout.tp > 1 && !unit.block.isEmpty
            ? cutCount(of: $1) : (ranksOfBlock - 1) * unit.range.count)
      }
    }
    return 4 * layout.dp
      * (count(outside) + 2 * k * count(blocks) - k * count(blocks.suffix(staying))
        - (k - 1) * count(blocks.prefix(staying)))
  }

  /// Where ranks cut weights: elements of a unit that a rank computes with and another one owns, over all pairs. A rank
  /// needs what is cut for it and all that is whole; owners have even stretches of the unit, in leaves of 4,096.
  private func cutCount(of unit: Int) -> Int {
    let (unit, ranks) = (network.units[unit], layout.tp)
    let owners = ShardPartition(count: unit.range.count, shardCount: ranks)
    var count = 0
    for entry in network.entries[unit.entries] {
      let rowLength = entry.range.count / entry.shape[0]
      for element in entry.range {
        let (row, column) = (element - entry.range.lowerBound).quotientAndRemainder(
          dividingBy: rowLength)
        let reader: Int
        switch entry.cut {
        case .whole:
          count += ranks - 1
          continue
        case .rows: reader = row * ranks / entry.shape[0]
        case .columns(let stretches):
          // Within its stretch of columns.
          var place = column
          var stretches = stretches[...]
          while let width = stretches.first, place >= width {
            place -= width
            stretches = stretches.dropFirst()
          }
          reader = place * ranks / (stretches.first ?? 1)
        }
        if owners.owner(of: element - unit.range.lowerBound) != reader { count += 1 }
      }
    }
    return count
  }

  // MARK: Activations

  /// There, back, and what of both is gathered once more, of all microbatches.
  var activations: Int {
    4 * layout.microbatchCount
      * (blockStates + velocity + (layout.architecture == .vchitect ? vchitect : hunyuanVideo))
  }

  private var samples: Int { configuration.batch.samples }
  private var width: Int { configuration.model.heads * configuration.model.headWidth }
  private var text: Int { configuration.model.textTokens }
  private var frames: Int { configuration.latentShape[1] }
  /// Of a frame: patches of 2 × 2.
  private var image: Int { configuration.latentShape[2] / 2 * (configuration.latentShape[3] / 2) }
  private var latentCount: Int { configuration.latentShape.reduce(samples, *) }
  private var blockCount: Int {
    configuration.model.doubleBlocks + configuration.model.singleBlocks
  }

  /// Own tokens of the velocity are gathered by all that share them; on the way back each has its own. From the
  /// last stage all others get it.
  private var velocity: Int {
    (layout.ring * layout.sp * layout.tp - 1 + layout.stages - 1) * latentCount
  }

  /// At each border of stages tokens and condition, B s h and B h, there and their gradients back; a word before
  /// each tensor says whether it is tracked, or there.
  private var blockStates: Int {
    (1..<max(layout.stages, 1)).reduce(0) { sum, stage in
      let border = stage * blockCount / layout.stages
      let isJoint =
        layout.architecture == .hunyuanVideo && border > configuration.model.doubleBlocks
      let tokens =
        layout.architecture == .vchitect ? frames * (image + text) : frames * image + text
      return sum + 2 * (samples * (tokens + 1) * width + (isJoint ? 2 : 3))
    }
  }

  /// Of so many elements of width D over all ranks: one all-to-all of tokens against heads, (p − 1) / p of them.
  private func headExchange(_ elementCount: Int) -> Int {
    elementCount * (layout.sp - 1) / layout.sp
  }

  /// Joint attention over s = L + T tokens.
  /// - Ulysses: queries, keys, values and outputs there and back, 8 B s h (p − 1) / p.
  /// - Ring: keys and values there, both and their gradients back, 6 B s h (p − 1), of heads that Ulysses cuts in it.
  /// - Tensors: gather and reduce-scatter around attention and MLP there and back, 8 (t − 1) B s h, in a block of
  ///   one stream around both together, half of it; each gather once more on the way back. Modulations are
  ///   gathered by columns, there and back.
  private var hunyuanVideo: Int {
    let model = configuration.model
    let elements = samples * (frames * image + text) * width
    let tensors =
      (layout.tp - 1)
      * (model.doubleBlocks * (10 * elements + 2 * 12 * samples * width)
        + model.singleBlocks * (5 * elements + 2 * 3 * samples * width))
    return blockCount * (8 * headExchange(elements) + 6 * (layout.ring - 1) * elements) + tensors
  }

  private var vchitect: Int {
    let imageElements = samples * frames * image * width
    let textElements = samples * frames * text * width
    let others = blockCount - 1
    // Of the last block the text serves the image alone: it has no queries and no results.
    let heads =
      switch layout.plan {
      // The joint branch exchanges as Ulysses.
      case .spatial:
        8 * blockCount * headExchange(imageElements)
          + (8 * others + 4) * headExchange(textElements)
      // All that branches read and give: of the image three queries, two keys, two values, three results; of the
      // text one of each and three results.
      case .all:
        20 * blockCount * headExchange(imageElements)
          + (12 * others + 4) * headExchange(textElements)
      }
    // Keys and values of the first frame's text are gathered for the cross branch, their gradients reduced.
    let cutTokens = layout.ring * (layout.plan == .spatial ? layout.sp : 1)
    let context = 4 * blockCount * (cutTokens - 1) * samples * text * width
    let ring = 6 * blockCount * (layout.ring - 1) * (imageElements + textElements)
    // Gather and reduce-scatter around attention and MLP as above, and between them the context's outputs summed
    // by columns and gathered back; the last block's text is gathered alone.
    let columns = 2 * (12 * others + 8) * samples * width
    let tensors =
      (layout.tp - 1)
      * (12 * blockCount * imageElements + (12 * others + 3) * textElements
        + columns)
    return heads + context + ring + tensors
  }
}

struct LayoutTrafficTests {
  @Test(arguments: TrafficLayout.all)
  func `a teach step sends as many bytes as the formulas say`(_ layout: TrafficLayout) throws {
    let step = try TaughtStep(layout.configuration, shape: layout.shape())
    let formulas = TrafficFormulas(layout)
    let (raw, wire) = (step.rawByteCounts, step.wireByteCounts)
    #expect(raw["gradients"] == formulas.gradients)
    #expect(raw["parameters"] == formulas.parameters)
    #expect(raw["activations", default: 0] == formulas.activations)
    // What the run says of itself is what its transport saw, and nothing else left a rank.
    let sent = step.sent.reduce(0) { $0 + $1.byteCount }
    #expect(sent == wire.values.reduce(0, +))
    #expect(wire["activations"] == raw["activations"])
    for kind in ["gradients", "parameters"] {
      let frames = try #require(wire[kind]) - (try #require(raw[kind]))
      #expect(frames % TaughtStep.frameByteCount == 0 && (frames > 0) == (raw[kind] != 0))
    }
  }
}

/// Ranks 0 and 1 on one node, 2 and 3 on another.
struct HybridShardingTests {
  private static let nodes = [0, 0, 1, 1]

  private func step(_ layout: TrafficLayout) throws -> TaughtStep {
    try TaughtStep(layout.configuration, shape: layout.shape(), nodes: Self.nodes)
  }

  /// Specification of distributed systems, §3: replicas sum 1 / zero of the gradients, 2 (dp − 1) / dp P / zero a
  /// rank, and shards stay inside a node.
  @Test(arguments: Architecture.allCases, [2, 3])
  func `between nodes travels what replicas sum, and nothing else`(
    architecture: Architecture, stage: Int
  ) throws {
    let hybrid = TrafficLayout(architecture: architecture, stage: stage, dp: 2, zero: 2)
    let formulas = TrafficFormulas(hybrid)
    let (dp, zero) = (hybrid.dp, hybrid.zero)
    let crossing = try step(hybrid).sent.map {
      $0.crossNodeByteCount - TaughtStep.frameByteCount * $0.crossNodeOperationCount
    }
    #expect(crossing.reduce(0, +) == 2 * (dp - 1) * formulas.parameterByteCount)
    // Shards of a unit differ by a leaf of 4,096 elements.
    let even = 2 * (dp - 1) * formulas.parameterByteCount / dp / zero
    let leaves = 4 * 4096 * formulas.network.units.count
    for count in crossing { #expect(abs(count - even) <= leaves) }

    // Sharded over both nodes, two thirds of all that is gathered and reduced go from one to the other.
    let flat = TrafficLayout(architecture: architecture, stage: stage, zero: 4)
    let all = TrafficFormulas(flat)
    let crossingFlat = try step(flat).sent.reduce(0) { $0 + $1.crossNodeByteCount }
    #expect(crossingFlat >= 2 * (all.gradients + all.parameters) / 3)
    #expect(crossingFlat > 3 * crossing.reduce(0, +))
  }
}
