// Twin of Models/HunyuanVideo: blocks of two streams, then of one.

extension NetworkTwin {
  /// - Shapes: → B·C·F·H·W.
  func forward(
    _ tape: TapeTwin, _ inputs: Inputs, sampleCount: Int, recomputedShare: Double
  ) -> ValueTwin {
    let stem = stem(tape, inputs, sampleCount: sampleCount)
    let streams = runDoubleBlocks(
      tape, stem, sampleCount: sampleCount, recomputedShare: recomputedShare)
    var video = streams[0]
    let text = streams[1]
    if sizes.singleBlockCount > 0 {
      var joint = tape.concatenate([video, text])
      for index in 0..<sizes.singleBlockCount {
        joint =
          run(
            sizes.doubleBlockCount + index, tape, [joint, stem.condition],
            recomputedShare: recomputedShare
          ) { tape, inputs in
            [
              singleBlock(
                tape, joint: inputs[0], condition: inputs[1], sampleCount: sampleCount)
            ]
          }[0]
      }
      video = tape.slice(joint, count: video.count)
    }
    let output = project(tape, video, stem, sampleCount: sampleCount)
    withExtendedLifetime((stem, streams)) {}
    return output
  }

  struct Stem {
    let video: ValueTwin
    let text: ValueTwin
    let condition: ValueTwin
  }

  func stem(_ tape: TapeTwin, _ inputs: Inputs, sampleCount: Int) -> Stem {
    let condition = conditionEmbedding(
      tape, pooled: inputs.pooled, pooledWidth: sizes.pooledWidth, sampleCount: sampleCount,
      hasGuidance: sizes.hasGuidanceEmbedding)
    let text = refine(tape, inputs, sampleCount: sampleCount)
    let patches = own(
      tape, tape.permuted(inputs.hiddenStates), tokenCount: sizes.videoTokenCount)
    return Stem(
      video: linear(tape, patches, from: sizes.inChannels * sizes.patchVolume, to: width),
      text: own(tape, text, tokenCount: sizes.textTokenCount), condition: tape.apply(condition))
  }

  func runDoubleBlocks(
    _ tape: TapeTwin, _ stem: Stem, sampleCount: Int, recomputedShare: Double
  ) -> [ValueTwin] {
    var streams = [stem.video, stem.text]
    for index in 0..<sizes.doubleBlockCount {
      streams = run(index, tape, streams + [stem.condition], recomputedShare: recomputedShare) {
        tape, inputs in
        doubleBlock(
          tape, video: inputs[0], text: inputs[1], condition: inputs[2], sampleCount: sampleCount)
      }
    }
    return streams
  }

  private func project(
    _ tape: TapeTwin, _ video: ValueTwin, _ stem: Stem, sampleCount: Int
  ) -> ValueTwin {
    let modulation = tape.chunks(
      linear(tape, stem.condition, from: width, to: 2 * width), count: 2)
    let normalized = tape.layerNorm(
      video, width: width, scale: modulation[0], shift: modulation[1])
    let patches = linear(tape, normalized, from: width, to: sizes.outChannels * sizes.patchVolume)
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
    let x = gathered(
      tape,
      tape.layerNorm(
        video, width: width, scale: videoModulation[1], shift: videoModulation[0]),
      videoCount, sampleCount)
    let y = gathered(
      tape,
      tape.layerNorm(text, width: width, scale: textModulation[1], shift: textModulation[0]),
      textCount, sampleCount)
    let query = tape.concatenate([
      normed(tape, heads(tape, x)), normed(tape, heads(tape, y)),
    ])
    let key = tape.concatenate([
      normed(tape, heads(tape, x)), normed(tape, heads(tape, y)),
    ])
    let value = tape.concatenate([heads(tape, x), heads(tape, y)])
    let attended = jointAttention(
      tape, query: query, key: key, value: value, sampleCount: sampleCount)
    let videoPart = tape.slice(attended, count: x.count / cut)
    let textPart = tape.slice(attended, count: y.count / cut)
    let videoMiddle = tape.gatedResidual(
      video, gate: videoModulation[2],
      rowLinear(tape, [videoPart], from: width, to: video.count))
    let textMiddle = tape.gatedResidual(
      text, gate: textModulation[2], rowLinear(tape, [textPart], from: width, to: text.count))
    let results = [
      mlp(tape, videoMiddle, videoModulation, videoCount, sampleCount),
      mlp(tape, textMiddle, textModulation, textCount, sampleCount),
    ]
    withExtendedLifetime((x, y, query, key, value, attended)) {}
    withExtendedLifetime((videoModulation, textModulation, videoPart, textPart)) {}
    return results
  }

  private func singleBlock(
    _ tape: TapeTwin, joint: ValueTwin, condition: ValueTwin, sampleCount: Int
  ) -> ValueTwin {
    let modulation = modulation(tape, condition, count: 3)
    let x = gathered(
      tape, tape.layerNorm(joint, width: width, scale: modulation[1], shift: modulation[0]),
      [sizes.videoTokenCount, sizes.textTokenCount], sampleCount)
    let query = normed(tape, heads(tape, x))
    let key = normed(tape, heads(tape, x))
    let attended = jointAttention(
      tape, query: query, key: key, value: heads(tape, x), sampleCount: sampleCount)
    let mlp = tape.apply(adapted(tape, x, from: width, to: sizes.mlpWidth / cut))
    let result = tape.gatedResidual(
      joint, gate: modulation[2],
      rowLinear(tape, [attended, mlp], from: width + sizes.mlpWidth, to: joint.count))
    withExtendedLifetime((modulation, x, query, key, attended, mlp)) {}
    return result
  }

  private func normed(_ tape: TapeTwin, _ x: ValueTwin) -> ValueTwin {
    tape.headNorm(x, headWidth: sizes.headWidth, isTrainable: isTrainable)
  }
}
