// The twin of Models/Vchitect, operation by operation; names follow those files.
//
// Letters: B clips, F frames, S image and T text tokens of a frame, s and t those of them that are held
// here, D width.

/// The two streams of a block.
private enum Stream {
  case image, text
}

extension NetworkTwin {
  /// - Shapes: → B·C·F·H·W.
  func multimodalProjection(
    _ tape: TapeTwin, _ state: StateTwin, sampleCount: Int
  ) -> ValueTwin {
    let partials = partials(.image)
    let modulation = tape.chunks(
      shared(tape, linear(tape, state.condition, from: width, to: 2 * width)), count: 2)
    let normalized = tape.layerNorm(
      state.streams[0], width: width, scale: modulation[0], shift: modulation[1],
      partials: partials)
    let patches = linear(
      tape, normalized, from: width, to: sizes.outChannels * sizes.patchVolume,
      partials: partials)
    let whole = allTokens(
      tape, patches, of: tokenCount(.image),
      tokenSize: sampleCount * sizes.latentFrames * sizes.outChannels * sizes.patchVolume)
    let output = tape.permuted(whole)
    withExtendedLifetime(normalized) {}
    return output
  }

  func multimodalState(
    _ tape: TapeTwin, _ inputs: Inputs, sampleCount: Int
  ) -> StateTwin {
    let condition = tape.apply(
      conditionEmbedding(
        tape, pooled: inputs.pooled, pooledWidth: sizes.pooledWidth, sampleCount: sampleCount,
        hasGuidance: false))
    return StateTwin(
      streams: [
        imageTokens(tape, inputs.hiddenStates, sampleCount: sampleCount),
        textTokens(tape, inputs.text, sampleCount: sampleCount),
      ], condition: condition)
  }

  private func imageTokens(
    _ tape: TapeTwin, _ latents: ValueTwin, sampleCount: Int
  ) -> ValueTwin {
    let frameCount = sampleCount * sizes.latentFrames
    let own = held(.image)
    let patchWidth = sizes.inChannels * sizes.patchVolume
    let patches = tape.permuted(latents)
    let tokens = linear(
      tape, ownPatches(tape, patches, tokenCount: tokenCount(.image)), from: patchWidth, to: width,
      partials: partials(.image))
    let table = tape.result(own * width)
    let repeated = ValueTwin(constant: tape.result(frameCount * own * width))
    withExtendedLifetime((patches, table)) {}
    return tape.add(tokens, repeated)
  }

  private func textTokens(_ tape: TapeTwin, _ text: ValueTwin, sampleCount: Int) -> ValueTwin {
    let projected = linear(
      tape, own(tape, text, tokenCount: tokenCount(.text)), from: sizes.textWidth, to: width,
      partials: partials(.text))
    return tape.concatenate(Array(repeating: projected, count: sizes.latentFrames))
  }

  /// - Parameter state: gone when the first block is through, unless the tape keeps it.
  func runMultimodalBlocks(
    _ blocks: Range<Int>, _ tape: TapeTwin, _ state: consuming StateTwin, _ form: MultimodalForm,
    sampleCount: Int, recomputedShare: Double
  ) -> StateTwin {
    var streams = state.streams
    let condition = state.condition
    _ = consume state
    for index in blocks {
      streams = run(index, tape, streams + [condition], recomputedShare: recomputedShare) {
        tape, inputs in
        multimodalBlock(
          tape, form, image: inputs[0], text: inputs[1], condition: inputs[2],
          sampleCount: sampleCount, isLast: index == sizes.doubleBlockCount - 1)
      }
    }
    return StateTwin(streams: streams, condition: condition)
  }

  private func multimodalBlock(
    _ tape: TapeTwin, _ form: MultimodalForm, image: ValueTwin, text: ValueTwin,
    condition: ValueTwin, sampleCount: Int, isLast: Bool
  ) -> [ValueTwin] {
    let (imagePartials, textPartials) = (partials(.image), partials(.text))
    let imageModulation = modulation(tape, condition, count: 6)
    let textModulation = isLast ? nil : modulation(tape, condition, count: 6)
    let frameCount = sampleCount * sizes.latentFrames
    let x = gathered(
      tape,
      tape.layerNorm(
        image, width: width, scale: imageModulation[1], shift: imageModulation[0],
        partials: imagePartials),
      [tokenCount(.image)], frameCount)
    let parts =
      textModulation.map { [$0[1], $0[0]] } ?? modulation(tape, condition, count: 2)
    let y = gathered(
      tape,
      tape.layerNorm(
        text, width: width, scale: parts[0], shift: parts[1], partials: textPartials),
      [tokenCount(.text)], frameCount)
    let attended = BranchesTwin(
      network: self, tape: tape, form: form, sampleCount: sampleCount
    ).attend(image: x, text: y, withText: !isLast)

    let imageMiddle = tape.gatedResidual(
      image, gate: imageModulation[2], attended[0], partials: imagePartials)
    let imageOutput = mlp(
      tape, imageMiddle, imageModulation, [tokenCount(.image)], frameCount)
    defer { withExtendedLifetime((x, y, attended, imageModulation, textModulation)) {} }
    guard let textModulation else { return [imageOutput] }
    let textMiddle = tape.gatedResidual(
      text, gate: textModulation[2], attended[1], partials: textPartials)
    return [
      imageOutput, mlp(tape, textMiddle, textModulation, [tokenCount(.text)], frameCount),
    ]
  }

  fileprivate func tokenCount(_ stream: Stream) -> Int {
    stream == .image ? sizes.frameTokenCount : sizes.textTokenCount
  }

  /// Partial sums over the held tokens of some streams.
  fileprivate func partials(_ streams: Stream...) -> Int { partials(streams.map(tokenCount)) }

  /// Tokens of a frame that are held here.
  fileprivate func held(_ stream: Stream) -> Int {
    part?.count(of: tokenCount(stream)) ?? tokenCount(stream)
  }
}

/// The twin of `MultimodalAttention`, `SharedBranches` and `AttentionBranches`.
private struct BranchesTwin {
  struct Operands {
    let query: ValueTwin
    let key: ValueTwin
    let value: ValueTwin
  }

  let network: NetworkTwin
  let tape: TapeTwin
  let form: MultimodalForm
  let sampleCount: Int

  private var sizes: NetworkSizes { network.sizes }
  /// Width and number of the heads that the rank has of the weights.
  private var width: Int { network.width / network.cut }
  private var headCount: Int { sizes.headCount / network.cut }
  /// B·F.
  private var frameCount: Int { sampleCount * sizes.latentFrames }
  private var degree: Int { network.part?.degree ?? 1 }
  private var exchangesAll: Bool { degree > 1 && form.exchangesAllBranches }
  private var exchangesSpatial: Bool { degree > 1 && !form.exchangesAllBranches }
  /// Of what `operand` leaves.
  private var heldWidth: Int { exchangesAll ? width / degree : width }
  private var heldHeadCount: Int { exchangesAll ? headCount / degree : headCount }

  func attend(image x: ValueTwin, text y: ValueTwin, withText: Bool) -> [ValueTwin] {
    let image = imageProjections(of: x)
    let textKey = projection(of: y, .text)
    let textValue = projection(of: y, .text)
    let textQuery = withText ? projection(of: y, .text) : nil
    let spatial = spatial(image, textQuery: textQuery, textKey, textValue)
    let context =
      form.hasOwnProjections ? (key: context(textKey), value: context(textValue)) : nil
    func cross(_ query: @autoclosure () -> ValueTwin) -> Operands? {
      context.map { Operands(query: query(), key: $0.key, value: $0.value) }
    }
    let imageCross = cross(projection(of: x, .image))
    let contexts = jointContexts(image: imageCross, text: textQuery.flatMap { cross($0) })
    let imagePart = merged(
      .image, spatial: spatial[0], cross: imageCross, context: contexts?[0],
      temporal: form.hasOwnProjections ? imageProjections(of: x) : image)
    defer { withExtendedLifetime((image, textKey, textValue, textQuery, spatial, context)) {} }
    guard let textQuery else { return [imagePart] }
    let textPart = merged(
      .text, spatial: spatial[1], cross: cross(textQuery), context: contexts?[1],
      temporal: Operands(query: textQuery, key: textKey, value: textValue))
    return [imagePart, textPart]
  }

  private func imageProjections(of x: ValueTwin) -> Operands {
    Operands(
      query: projection(of: x, .image), key: projection(of: x, .image),
      value: projection(of: x, .image))
  }

  private func projection(of x: ValueTwin, _ stream: Stream) -> ValueTwin {
    let projected = network.heads(tape, x, network.groupPartials([network.tokenCount(stream)]))
    return exchangesAll ? scattered(projected, [stream]) : projected
  }

  private func jointContexts(image: Operands?, text: Operands?) -> [ValueTwin]? {
    guard sizes.sumsInBlocks, let image, let text else { return nil }
    let parts = [attended(image, of: .image), attended(text, of: .text)]
    let joint = network.innerLinear(
      tape, tape.concatenate(parts), [.image, .text].map(network.tokenCount), frameCount)
    return parts.map { tape.slice(joint, count: $0.count) }
  }

  /// The cross branch.
  private func attended(_ cross: Operands, of stream: Stream) -> ValueTwin {
    let attended = tape.attention(
      query: cross.query, key: cross.key, value: cross.value, headCount: heldHeadCount,
      sampleCount: sampleCount, width: heldWidth)
    return left(attended, of: stream)
  }

  private func merged(
    _ stream: Stream, spatial: ValueTwin, cross: Operands?, context: ValueTwin?,
    temporal: @autoclosure () -> Operands
  ) -> ValueTwin {
    let segments = [network.tokenCount(stream)]
    let temporal = sizes.latentFrames > 1 ? self.temporal(temporal(), of: stream) : nil
    defer { withExtendedLifetime((temporal, cross)) {} }
    func outputs(_ branches: [ValueTwin]) -> ValueTwin {
      network.rowLinears(
        tape, branches, to: frameCount * network.held(stream) * network.width, segments,
        frameCount)
    }
    guard let cross else {
      return outputs([temporal.map { tape.add(spatial, $0) } ?? spatial])
    }
    let context =
      context ?? network.innerLinear(tape, attended(cross, of: stream), segments, frameCount)
    let merged = tape.combine(
      spatial, context, passingTo: form.hasUnitGain ? [0, 1] : [1])
    return outputs([merged] + (temporal.map { [$0] } ?? []))
  }

  // MARK: Branches

  private func spatial(
    _ image: Operands, textQuery: ValueTwin?, _ textKey: ValueTwin, _ textValue: ValueTwin
  ) -> [ValueTwin] {
    let streams: [Stream] = textQuery == nil ? [.image] : [.image, .text]
    let query = textQuery.map { tape.concatenate([image.query, $0]) } ?? image.query
    let key = tape.concatenate([image.key, textKey])
    let value = tape.concatenate([image.value, textValue])
    func attended(_ query: ValueTwin, _ key: ValueTwin, _ value: ValueTwin) -> ValueTwin {
      guard let part = network.part, part.ringDegree > 1 else {
        return tape.attention(
          query: query, key: key, value: value, headCount: headCount / degree,
          sampleCount: frameCount, width: width / degree)
      }
      let blockCounts = (0..<part.ringDegree).map { rank in
        ([.image, .text] as [Stream]).reduce(0) {
          $0 + part.ringCount(of: network.tokenCount($1), at: rank)
        } * frameCount * (width / degree)
      }
      return tape.ringAttention(
        query: query, key: key, value: value, headCount: headCount / degree,
        width: width / degree, blockCounts: blockCounts, rank: part.ringRank,
        sampleCount: frameCount)
    }
    func cut(_ x: ValueTwin) -> [ValueTwin] {
      guard let textQuery else { return [x] }
      return [
        tape.slice(x, count: image.query.count), tape.slice(x, count: textQuery.count),
      ]
    }
    guard exchangesSpatial else {
      let parts = cut(attended(query, key, value))
      return zip(streams, parts).map { left($1, of: $0) }
    }
    let all = attended(
      scattered(query, streams), scattered(key, [.image, .text]),
      scattered(value, [.image, .text]))
    return cut(gathered(all, to: query.count))
  }

  private func temporal(_ operands: Operands, of stream: Stream) -> ValueTwin {
    let value = tape.permuted(operands.value)
    let (query, key) = (
      tape.rotatedAndTransposed(operands.query), tape.rotatedAndTransposed(operands.key)
    )
    let tokenCount = exchangesAll ? pieceCount(stream) : groupCount(stream)
    let attended = tape.attention(
      query: query, key: key, value: value, headCount: heldHeadCount,
      sampleCount: sampleCount * tokenCount, width: heldWidth)
    withExtendedLifetime((query, key, value)) {}
    return left(tape.permuted(attended), of: stream)
  }

  private func context(_ x: ValueTwin) -> ValueTwin {
    let frames = tape.slice(x, count: x.count / max(sizes.latentFrames, 1))
    let ringDegree = network.part?.ringDegree ?? 1
    let rounds = [
      (exchangesSpatial ? degree : 1, pieceCount(.text)), (ringDegree, sizes.textTokenCount),
    ]
    return rounds.filter { $0.0 > 1 }.reduce(frames) { x, round in
      tape.shareTokens(
        x, to: sampleCount * round.1 * heldWidth, peerCount: round.0 - 1)
    }
  }

  // MARK: Exchanges

  /// Tokens of a frame that those have who cut weights with this rank.
  private func groupCount(_ stream: Stream) -> Int {
    network.part?.groupCount(of: network.tokenCount(stream)) ?? network.tokenCount(stream)
  }

  /// Tokens of a frame in the own part of a ring.
  private func pieceCount(_ stream: Stream) -> Int {
    network.part?.ringCount(of: network.tokenCount(stream)) ?? network.tokenCount(stream)
  }

  /// Own tokens of all heads → all tokens of own heads. Own tokens of the heads of others go out, tokens of
  /// others of the own heads come back.
  private func scattered(_ x: ValueTwin, _ streams: [Stream]) -> ValueTwin {
    let tokens = streams.reduce(0) { $0 + pieceCount($1) }
    let allCount = frameCount * tokens * (width / degree)
    return tape.exchange(
      x, to: allCount, sentCount: x.count / degree * (degree - 1),
      sentBackCount: allCount - x.count / degree, peerCount: degree - 1)
  }

  /// The inverse, to a tensor of `count` elements.
  private func gathered(_ x: ValueTwin, to count: Int) -> ValueTwin {
    tape.exchange(
      x, to: count, sentCount: x.count - count / degree,
      sentBackCount: count / degree * (degree - 1), peerCount: degree - 1)
  }

  private func left(_ x: ValueTwin, of stream: Stream) -> ValueTwin {
    exchangesAll ? gathered(x, to: frameCount * groupCount(stream) * width) : x
  }
}
