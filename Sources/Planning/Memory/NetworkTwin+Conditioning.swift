// Twin of what makes the condition and the text tokens.

extension NetworkTwin {
  func conditionEmbedding(
    _ tape: TapeTwin, pooled: ValueTwin, pooledWidth: Int, sampleCount: Int, hasGuidance: Bool
  ) -> ValueTwin {
    var embedding = sinusoidal(tape, sampleCount: sampleCount)
    if hasGuidance {
      embedding = tape.add(embedding, sinusoidal(tape, sampleCount: sampleCount))
    }
    let text = linear(
      tape, tape.apply(linear(tape, pooled, from: pooledWidth, to: width)), from: width, to: width)
    return tape.add(embedding, text)
  }

  private func sinusoidal(_ tape: TapeTwin, sampleCount: Int) -> ValueTwin {
    let waves = ValueTwin(constant: tape.result(sampleCount * Self.sinusoidWidth))
    return linear(
      tape, tape.apply(linear(tape, waves, from: Self.sinusoidWidth, to: width)), from: width,
      to: width)
  }

  func refine(_ tape: TapeTwin, _ inputs: Inputs, sampleCount: Int) -> ValueTwin {
    let mean = tape.weightedTokenSum(inputs.text, to: sampleCount * sizes.textWidth)
    let condition = tape.apply(
      conditionEmbedding(
        tape, pooled: mean, pooledWidth: sizes.textWidth, sampleCount: sampleCount,
        hasGuidance: false))
    var x = linear(tape, inputs.text, from: sizes.textWidth, to: width)
    for _ in 0..<sizes.refinerBlockCount {
      x = refinerBlock(tape, x, condition: condition, sampleCount: sampleCount)
    }
    withExtendedLifetime((mean, condition)) {}
    return x
  }

  private func refinerBlock(
    _ tape: TapeTwin, _ x: ValueTwin, condition: ValueTwin, sampleCount: Int
  ) -> ValueTwin {
    let mlpWidth = width * Self.refinerRatio
    let gates = tape.chunks(linear(tape, condition, from: width, to: 2 * width), count: 2)
    let normalized = tape.layerNorm(x, width: width, isTrainable: isTrainable)
    let attended = tape.attention(
      query: linear(tape, normalized, from: width, to: width),
      key: linear(tape, normalized, from: width, to: width),
      value: linear(tape, normalized, from: width, to: width), headCount: sizes.headCount,
      sampleCount: sampleCount, width: width)
    let y = tape.gatedResidual(
      x, gate: gates[0], linear(tape, attended, from: width, to: width))
    let hidden = tape.layerNorm(y, width: width, isTrainable: isTrainable)
    let result = tape.gatedResidual(
      y, gate: gates[1],
      linear(
        tape, tape.apply(linear(tape, hidden, from: width, to: mlpWidth)), from: mlpWidth,
        to: width))
    withExtendedLifetime((gates, normalized, attended, y, hidden)) {}
    return result
  }
}
