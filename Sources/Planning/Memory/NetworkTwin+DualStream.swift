// Twin of Models/HunyuanVideo: blocks of two streams, then of one.

extension NetworkTwin {
  /// What blocks pass on.
  struct StateTwin {
    let streams: [ValueTwin]
    let condition: ValueTwin

    var values: [ValueTwin] { streams + [condition] }
  }

  func embed(_ tape: TapeTwin, _ inputs: Inputs, sampleCount: Int) -> StateTwin {
    let condition = conditionEmbedding(
      tape, pooled: inputs.pooled, pooledWidth: sizes.pooledWidth, sampleCount: sampleCount,
      hasGuidance: sizes.hasGuidanceEmbedding)
    let text = refine(tape, inputs, sampleCount: sampleCount)
    let patches = ownPatches(
      tape, tape.permuted(inputs.hiddenStates), tokenCount: sizes.videoTokenCount)
    let video = linear(
      tape, patches, from: sizes.inChannels * sizes.patchVolume, to: width,
      partials: partials([sizes.videoTokenCount]))
    return StateTwin(
      streams: [video, own(tape, text, tokenCount: sizes.textTokenCount)],
      condition: tape.apply(condition))
  }

  /// - Parameter state: gone when the first block is through, unless the tape keeps it.
  func runBlocks(
    _ blocks: Range<Int>, _ tape: TapeTwin, _ state: consuming StateTwin, sampleCount: Int,
    recomputedShare: Double
  ) -> StateTwin {
    var streams = state.streams
    let condition = state.condition
    _ = consume state
    for index in blocks {
      guard index >= sizes.doubleBlockCount else {
        streams = run(index, tape, streams + [condition], recomputedShare: recomputedShare) {
          tape, inputs in
          doubleBlock(
            tape, video: inputs[0], text: inputs[1], condition: inputs[2],
            sampleCount: sampleCount)
        }
        continue
      }
      if streams.count == 2 { streams = [tape.concatenate(streams)] }
      streams = run(index, tape, streams + [condition], recomputedShare: recomputedShare) {
        tape, inputs in
        [singleBlock(tape, joint: inputs[0], condition: inputs[1], sampleCount: sampleCount)]
      }
    }
    return StateTwin(streams: streams, condition: condition)
  }

  /// - Shapes: → B·C·F·H·W.
  func dualStreamProjection(
    _ tape: TapeTwin, _ state: StateTwin, sampleCount: Int
  ) -> ValueTwin {
    let videoCount = part?.count(of: sizes.videoTokenCount) ?? sizes.videoTokenCount
    let video =
      state.streams.count == 1
      ? tape.slice(state.streams[0], count: sampleCount * videoCount * width) : state.streams[0]
    let partials = partials([sizes.videoTokenCount])
    let modulation = tape.chunks(
      shared(tape, linear(tape, state.condition, from: width, to: 2 * width)), count: 2)
    let normalized = tape.layerNorm(
      video, width: width, scale: modulation[0], shift: modulation[1], partials: partials)
    let patches = linear(
      tape, normalized, from: width, to: sizes.outChannels * sizes.patchVolume,
      partials: partials)
    let all = allTokens(
      tape, patches, of: sizes.videoTokenCount,
      tokenSize: sampleCount * sizes.outChannels * sizes.patchVolume)
    return tape.permuted(all)
  }

  // MARK: Blocks

  private func doubleBlock(
    _ tape: TapeTwin, video: ValueTwin, text: ValueTwin, condition: ValueTwin, sampleCount: Int
  ) -> [ValueTwin] {
    let videoModulation = modulation(tape, condition, count: 6)
    let textModulation = modulation(tape, condition, count: 6)
    let (videoCount, textCount) = ([sizes.videoTokenCount], [sizes.textTokenCount])
    let (videoPartials, textPartials) = (partials(videoCount), partials(textCount))
    let x = gathered(
      tape,
      tape.layerNorm(
        video, width: width, scale: videoModulation[1], shift: videoModulation[0],
        partials: videoPartials),
      videoCount, sampleCount)
    let y = gathered(
      tape,
      tape.layerNorm(
        text, width: width, scale: textModulation[1], shift: textModulation[0],
        partials: textPartials),
      textCount, sampleCount)
    let (videoGroup, textGroup) = (groupPartials(videoCount), groupPartials(textCount))
    let ownCount = x.count / cut + y.count / cut
    func operand(_ parts: ValueTwin...) -> () -> ValueTwin {
      self.operand(tape, tape.concatenate(parts), sampleCount: sampleCount)
    }
    func normedHeads() -> () -> ValueTwin {
      operand(
        normed(tape, heads(tape, x, videoGroup), videoCount, sampleCount),
        normed(tape, heads(tape, y, textGroup), textCount, sampleCount))
    }
    let (query, key) = (normedHeads(), normedHeads())
    let value = operand(heads(tape, x, videoGroup), heads(tape, y, textGroup))
    let attended = jointAttention(
      tape, query: query, key: key, value: value, ownCount: ownCount, sampleCount: sampleCount)
    let videoPart = tape.slice(attended, count: x.count / cut)
    let textPart = tape.slice(attended, count: y.count / cut)
    let videoMiddle = tape.gatedResidual(
      video, gate: videoModulation[2],
      rowLinear(tape, [videoPart], from: width, to: video.count, videoCount, sampleCount),
      partials: videoPartials)
    let textMiddle = tape.gatedResidual(
      text, gate: textModulation[2],
      rowLinear(tape, [textPart], from: width, to: text.count, textCount, sampleCount),
      partials: textPartials)
    let results = [
      mlp(tape, videoMiddle, videoModulation, videoCount, sampleCount),
      mlp(tape, textMiddle, textModulation, textCount, sampleCount),
    ]
    withExtendedLifetime((x, y, attended)) {}
    withExtendedLifetime((videoModulation, textModulation, videoPart, textPart)) {}
    return results
  }

  private func singleBlock(
    _ tape: TapeTwin, joint: ValueTwin, condition: ValueTwin, sampleCount: Int
  ) -> ValueTwin {
    let modulation = modulation(tape, condition, count: 3)
    let segments = [sizes.videoTokenCount, sizes.textTokenCount]
    let partials = partials(segments)
    let x = gathered(
      tape,
      tape.layerNorm(
        joint, width: width, scale: modulation[1], shift: modulation[0], partials: partials),
      segments, sampleCount)
    let group = groupPartials(segments)
    func operand(_ x: ValueTwin) -> () -> ValueTwin {
      self.operand(tape, x, sampleCount: sampleCount)
    }
    let query = operand(normed(tape, heads(tape, x, group), segments, sampleCount))
    let key = operand(normed(tape, heads(tape, x, group), segments, sampleCount))
    let value = operand(heads(tape, x, group))
    let mlp = tape.apply(
      adapted(tape, x, from: width, to: sizes.mlpWidth / cut, partials: group))
    let attended = jointAttention(
      tape, query: query, key: key, value: value, ownCount: x.count / cut,
      sampleCount: sampleCount)
    let result = tape.gatedResidual(
      joint, gate: modulation[2],
      rowLinear(
        tape, [attended, mlp], from: width + sizes.mlpWidth, to: joint.count, segments,
        sampleCount), partials: partials)
    withExtendedLifetime((modulation, x, attended, mlp)) {}
    return result
  }
}
