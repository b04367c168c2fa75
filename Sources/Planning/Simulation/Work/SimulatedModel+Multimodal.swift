// Vchitect-2.0 as the simulation sees it: blocks over image and text tokens of every frame.
//
// With B samples, F frames, S image and T text tokens of a frame, D width, r the adapter's rank; a multiply-add counts
// as two. Square layers of a token, D × D each, of form v2 (v1):
//   image    4 of the spatial branch, cross query, W_c (v2), 4 of the temporal branch (v1: none of its own)
//   text     4, W_c and 1 of the temporal branch (v1: 4); of the last block keys and values alone
// with an MLP of 8 D D each, but for the last block's text. Temporal layers and attention fall away for one frame.
//   attention    4B F Nq N D within frames, 4B Nq F² D along time, 4B F Nq T D to the text (v2),
//                N = S + T, Nq those of them with queries: N, in the last block S
// What is exchanged, in tensors of a stream's tokens: over `sp` queries, keys, values and results, of the spatial branch
// or of all (`SequencePlan`); over `tp` inputs and outputs of attention and MLP, and the context between (v2); the
// text of first frames to all (v2).
// Source: specification of Vchitect-2.0, §3, §5 and §6.

extension SimulatedModel {
  init(_ sizes: WorkloadSizes, _ form: MultimodalForm) {
    let network = sizes.network
    let counts = MultimodalCounts(sizes, form)
    let blockCount = network.doubleBlockCount
    let shares = (0..<blockCount).map { counts.adapterWidth(isLast: $0 == blockCount - 1) }
    let shareSum = shares.reduce(0, +)
    let blocks = shares.enumerated().map { index, share in
      var block = counts.block(isLast: index == blockCount - 1)
      block.adapterCount =
        shareSum > 0 ? Double(sizes.adapterElementCount) * share / shareSum : 0
      return block
    }
    let inside = blocks.reduce(0) { $0 + $1.parameterCount }
    self.init(
      ends: counts.ends(parameterCount: max(0, Double(sizes.networkElementCount) - inside)),
      blocks: blocks, headCount: network.headCount, width: network.width,
      samplesPerMicrobatch: sizes.samplesPerMicrobatch, tokenCount: network.rowCount,
      latentElementCount: network.latentCount,
      elementsOfBlock: form.hasOwnProjections ? 26 : 23)
  }
}

private struct MultimodalCounts {
  let network: NetworkSizes
  let form: MultimodalForm
  let d: Double
  let batch: Double
  let rank: Double
  let frames: Double
  /// S and T.
  let image: Double
  let text: Double

  init(_ sizes: WorkloadSizes, _ form: MultimodalForm) {
    network = sizes.network
    self.form = form
    d = Double(network.width)
    batch = Double(sizes.samplesPerMicrobatch)
    rank = Double(sizes.adapterRank)
    frames = Double(network.latentFrames)
    (image, text) = (Double(network.frameTokenCount), Double(network.textTokenCount))
  }

  private var isReleased: Bool { form.hasOwnProjections }
  private var hasTime: Bool { network.latentFrames > 1 }
  private var mlpWidth: Double { Double(network.mlpWidth) }

  /// Square layers that a token of a stream passes.
  private func squares(isText: Bool, isLast: Bool) -> Double {
    if isText && isLast { return 2 }
    guard isReleased else { return 4 }
    return isText ? 5 + (hasTime ? 1 : 0) : 6 + (hasTime ? 4 : 0)
  }

  private func hasMLP(isText: Bool, isLast: Bool) -> Bool { !(isText && isLast) }

  /// Σ of a × b over linear layers of a × b elements, and of a + b, for a token.
  private func layers(isText: Bool, isLast: Bool) -> (product: Double, sum: Double) {
    let squares = squares(isText: isText, isLast: isLast)
    let mlp = hasMLP(isText: isText, isLast: isLast) ? 2.0 : 0
    return (
      squares * d * d + mlp * d * mlpWidth, squares * 2 * d + mlp * (d + mlpWidth)
    )
  }

  /// Inputs and outputs of all layers that an adapter adapts, idle ones too.
  func adapterWidth(isLast: Bool) -> Double {
    let squares = squareCount(isLast: isLast)
    return squares * 2 * d + (isLast ? 2 : 4) * (d + mlpWidth)
  }

  private func squareCount(isLast: Bool) -> Double {
    3 + 3 + 1 + (isLast ? 0 : 1) + (isReleased ? 7 : 0)
  }

  func block(isLast: Bool) -> SimulatedUnit {
    let joint = image + text
    let queries = isLast ? image : joint
    let (imageLayers, textLayers) = (
      layers(isText: false, isLast: isLast), layers(isText: true, isLast: isLast)
    )
    let modulations = isLast ? 8.0 : 12
    let mlps = isLast ? 1.0 : 2
    let perFrame = queries * joint + (isReleased ? queries * text : 0)
    return SimulatedUnit(
      parameterCount: (squareCount(isLast: isLast) + modulations) * (d * d + d)
        + mlps * (2 * d * mlpWidth + d + mlpWidth),
      linear: 2 * batch * frames * (image * imageLayers.product + text * textLayers.product),
      attention: 4 * batch * d
        * (frames * perFrame + (hasTime ? queries * frames * frames : 0)),
      adapter: 2 * batch * rank * frames * (image * imageLayers.sum + text * textLayers.sum),
      repeated: 2 * batch * modulations * d * d,
      exchanges: exchanges(isLast: isLast))
  }

  private func exchanges(isLast: Bool) -> UnitExchanges {
    let (imageCount, textCount) = (batch * frames * image * d, batch * frames * text * d)
    let queries = isLast ? imageCount : imageCount + textCount
    func tensors(_ image: Double, _ text: Double) -> [ExchangedTensors] {
      [ExchangedTensors(image, of: imageCount), ExchangedTensors(text, of: textCount)]
    }
    let time = hasTime ? 1.0 : 0
    let scattered: [ExchangedTensors]
    if form.exchangesAllBranches {
      scattered =
        isReleased
        ? tensors(6 + 4 * time, isLast ? 2 : 5 + time)
        : tensors(4 + time, isLast ? 2 : 4 + time)
    } else {
      scattered = [
        ExchangedTensors(2, of: queries), ExchangedTensors(2, of: imageCount + textCount),
      ]
    }
    return UnitExchanges(
      scattered: scattered, circulated: 2 * (imageCount + textCount),
      gathered: tensors(2, isLast ? 1 : 2),
      reduced: tensors(isReleased ? 3 : 2, isLast ? 0 : isReleased ? 3 : 2),
      columns: [6, isLast ? 2 : 6].map { ExchangedTensors(1, of: $0 * batch * d) },
      shared: ExchangedTensors(isReleased ? 2 : 0, of: batch * text * d),
      hasSharedHeads: form.exchangesAllBranches)
  }

  func ends(parameterCount: Double) -> SimulatedUnit {
    let patch = Double(network.patchVolume) * Double(network.inChannels + network.outChannels)
    let (textWidth, pooled) = (Double(network.textWidth), Double(network.pooledWidth))
    return SimulatedUnit(
      parameterCount: parameterCount,
      linear: 2 * batch * d * (frames * image * patch + text * textWidth),
      // Time and pooled text, each two layers, and the output's modulation.
      repeated: 2 * batch * (256 * d + d * d + pooled * d + d * d + 2 * d * d), isBlock: false)
  }
}
