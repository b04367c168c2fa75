// A transformer as the simulation sees it: ends and blocks, each with its parameters and the operations of
// a forward pass of one microbatch. Vchitect's: SimulatedModel+Multimodal.swift.
//
// HunyuanVideo, with B samples, L video and T text tokens, D width, M width of the MLP, V elements of a patch, r the
// adapter's rank; a multiply-add counts as two:
//   double block   2B (12 DD + (L + T)(4DD + 2DM)) + 4B (L + T)² D     2 (10 DD + 2DM + 11 D + M) parameters
//   single block   2B (3 DD + (L + T)(4DD + 2DM)) + 4B (L + T)² D      7 DD + 2DM + 7 D + M parameters
//   adapter        2Br (L + T)(8D + 2(D + M)) and 2Br (L + T)(7D + 2(D + M)), on double and single blocks
// so that both kinds of blocks run for the same time but for modulation. The ends are the rest.
// Elementwise work is in the machine's step efficiency.

import MeshLayout

/// Ends or one block.
package struct SimulatedUnit: Equatable, Sendable {
  package var parameterCount: Double
  package var adapterCount: Double
  /// Of both, what ranks that cut weights have all of it: norms, biases, one factor of every adapter.
  package var wholeCount = 0.0
  package var wholeAdapterCount = 0.0
  /// Operations of products with weights that split over tokens and heads.
  package var linear: Double
  /// q kᵀ and p v.
  package var attention: Double
  /// The low-rank branch, where it runs.
  package var adapter: Double
  /// Operations that every rank of those that share tokens repeats: conditions and text. In blocks their weights are cut.
  package var repeated: Double
  /// Whether it has an attention to exchange tokens for, and activations to keep.
  package var isBlock: Bool
  /// What a block exchanges; nil: as one attention over all tokens does.
  package var exchanges: UnitExchanges?

  package init(
    parameterCount: Double, adapterCount: Double = 0, linear: Double, attention: Double = 0,
    adapter: Double = 0, repeated: Double = 0, isBlock: Bool = true,
    exchanges: UnitExchanges? = nil
  ) {
    self.parameterCount = parameterCount
    self.adapterCount = adapterCount
    self.linear = linear
    self.attention = attention
    self.adapter = adapter
    self.repeated = repeated
    self.isBlock = isBlock
    self.exchanges = exchanges
  }
}

package struct SimulatedModel: Equatable, Sendable {
  /// Equal blocks in a row.
  struct Stretch: Equatable, Sendable {
    let block: SimulatedUnit
    var count: Int
  }

  /// What is no block; runs with the first stage.
  package var ends: SimulatedUnit
  package var blocks: [SimulatedUnit] { didSet { stretches = Self.stretches(of: blocks) } }
  /// Blocks that follow each other and are equal: most searches ask for the cost of each kind once.
  private(set) var stretches: [Stretch]
  package var headCount: Int
  package var width: Int
  package var samplesPerMicrobatch: Int
  /// Video and text tokens of a sample, those of every frame.
  package var tokenCount: Int
  /// Elements of a sample's latent.
  package var latentElementCount: Int
  /// Elements of a block's activations for each element of its hidden states: Megatron's 34 bytes in 16 bits without
  /// scores, or counted.
  package var elementsOfBlock: Double
  /// Before and behind how many blocks image or video and text are streams of their own; nil: all.
  package var doubleBlockCount: Int?

  package init(
    ends: SimulatedUnit, blocks: [SimulatedUnit], headCount: Int, width: Int,
    samplesPerMicrobatch: Int, tokenCount: Int, latentElementCount: Int,
    elementsOfBlock: Double = 17
  ) {
    self.ends = ends
    self.blocks = blocks
    stretches = Self.stretches(of: blocks)
    self.headCount = headCount
    self.width = width
    self.samplesPerMicrobatch = samplesPerMicrobatch
    self.tokenCount = tokenCount
    self.latentElementCount = latentElementCount
    self.elementsOfBlock = elementsOfBlock
  }

  private static func stretches(of blocks: [SimulatedUnit]) -> [Stretch] {
    blocks.reduce(into: []) { stretches, block in
      if let last = stretches.indices.last, stretches[last].block == block {
        stretches[last].count += 1
      } else {
        stretches.append(Stretch(block: block, count: 1))
      }
    }
  }

  package init(_ sizes: WorkloadSizes) {
    switch sizes.network.form {
    case .doubleAndSingleStream: self.init(dualStream: sizes)
    case .multimodal(let form): self.init(sizes, form)
    }
    noteWhole(sizes.networkUnits, \.wholeCount)
    noteWhole(sizes.adapterUnits, \.wholeAdapterCount)
  }

  /// Counts elements of tensors that are not cut, where the units of a network are its blocks.
  private mutating func noteWhole(
    _ units: [PlannedUnit], _ path: WritableKeyPath<SimulatedUnit, Double>
  ) {
    let units = units.filter(\.isBlock)
    guard units.count == blocks.count else { return }
    for (index, unit) in units.enumerated() {
      blocks[index][keyPath: path] = Double(
        unit.tensors.reduce(0) { $0 + ($1.stretches.isEmpty ? $1.range.count : 0) })
    }
  }

  private init(dualStream sizes: WorkloadSizes) {
    let network = sizes.network
    let batch = Double(sizes.samplesPerMicrobatch)
    let (d, m) = (Double(network.width), Double(network.mlpWidth))
    let (l, t) = (Double(network.videoTokenCount), Double(network.textTokenCount))
    let (tokens, rank) = (l + t, Double(sizes.adapterRank))
    let shares = (double: 16 * d + 4 * (d + m), single: 7 * d + 2 * (d + m))
    let shareSum =
      Double(network.doubleBlockCount) * shares.double
      + Double(network.singleBlockCount) * shares.single
    func block(
      _ parameterCount: Double, modulation: Double, adapterShare: Double, adapterWidth: Double,
      _ exchanges: UnitExchanges
    ) -> SimulatedUnit {
      SimulatedUnit(
        parameterCount: parameterCount,
        adapterCount: shareSum > 0
          ? Double(sizes.adapterElementCount) * adapterShare / shareSum : 0,
        linear: 2 * batch * tokens * (4 * d * d + 2 * d * m),
        attention: 4 * batch * tokens * tokens * d,
        adapter: 2 * batch * rank * tokens * adapterWidth,
        repeated: 2 * batch * modulation, exchanges: exchanges)
    }
    let headWidth = Double(network.headWidth)
    let double = block(
      2 * (10 * d * d + 2 * d * m + 11 * d + m + 2 * headWidth), modulation: 12 * d * d,
      adapterShare: shares.double, adapterWidth: 8 * d + 2 * (d + m),
      .joint([batch * l * d, batch * t * d], modulations: [6 * batch * d, 6 * batch * d]))
    let single = block(
      7 * d * d + 2 * d * m + 7 * d + m + 2 * headWidth, modulation: 3 * d * d,
      adapterShare: shares.single, adapterWidth: 7 * d + 2 * (d + m),
      .joint([batch * tokens * d], layersInARow: 1, modulations: [3 * batch * d]))
    let blocks =
      Array(repeating: double, count: network.doubleBlockCount)
      + Array(repeating: single, count: network.singleBlockCount)
    let inside = blocks.reduce(0) { $0 + $1.parameterCount }
    let patch = Double(network.patchVolume)
    let channels = Double(network.inChannels + network.outChannels)
    let (text, pooled) = (Double(network.textWidth), Double(network.pooledWidth))
    let sinusoid = 256 * d + d * d
    let refiners = Double(network.refinerBlockCount)
    let conditions =
      sinusoid * (network.hasGuidanceEmbedding ? 3 : 2) + pooled * d + d * d + text * d + d * d
      + 2 * d * d
    let ends = SimulatedUnit(
      parameterCount: max(0, Double(sizes.networkElementCount) - inside),
      linear: 2 * batch * l * patch * channels * d,
      repeated: 2 * batch
        * (conditions + t * text * d + refiners * (t * 12 * d * d + 2 * d * d))
        + 4 * batch * refiners * t * t * d, isBlock: false)
    self.init(
      ends: ends, blocks: blocks, headCount: network.headCount, width: network.width,
      samplesPerMicrobatch: sizes.samplesPerMicrobatch, tokenCount: network.rowCount,
      latentElementCount: network.latentCount)
    doubleBlockCount = network.doubleBlockCount
  }

  package var parameterCount: Double {
    blocks.reduce(ends.parameterCount) { $0 + $1.parameterCount }
  }

  /// Elements of a microbatch's hidden states.
  package var hiddenElementCount: Double {
    Double(samplesPerMicrobatch) * Double(tokenCount) * Double(width)
  }

  /// Elements that a stage hands on besides hidden states before a block: the condition, and a word for each tensor
  /// that says whether its gradient is wanted.
  func handedElementCount(beforeBlock block: Int) -> (condition: Double, words: Double) {
    let streamCount = doubleBlockCount.map { block <= $0 ? 2.0 : 1 } ?? 2
    return (Double(samplesPerMicrobatch * width), streamCount + 1)
  }

  /// Operations of a forward pass of a microbatch, without the adapter.
  package var forwardOperationCount: Double {
    blocks.reduce(ends.linear + ends.repeated) {
      $0 + $1.linear + $1.attention + $1.repeated
    }
  }
}
