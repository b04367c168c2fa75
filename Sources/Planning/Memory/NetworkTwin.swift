// The conditioned transformer over sizes: the twin of Models/HunyuanVideo, Conditioning and
// Discriminator, operation by operation. Names follow those files; B samples, L video tokens, T text
// tokens, D width. The blocks of Vchitect-2.0: NetworkTwin+Multimodal.swift.

import Basics
import MeshLayout

/// The part of the tokens that a rank of a sequence-parallel group runs, and of the weights of blocks.
struct SequencePart: Hashable {
  /// Around the ring, and among those that have one part of it and exchange heads.
  let ringRank: Int
  let ringDegree: Int
  let rank: Int
  let degree: Int
  /// Among those that cut weights, and these tokens, among them.
  let tensorRank: Int
  let tensorDegree: Int

  init(rank: Int, shape: MeshShape) {
    let place = shape.coordinates(of: rank)
    (ringRank, ringDegree) = (place[.ring, default: 0], shape[.ring])
    (self.rank, degree) = (place[.sp, default: 0], shape[.sp])
    (tensorRank, tensorDegree) = (place[.tp, default: 0], shape[.tp])
  }

  /// Own tokens of a segment.
  func count(of tokenCount: Int) -> Int {
    evenRange(of: groupCount(of: tokenCount), part: tensorRank, partCount: tensorDegree).count
  }

  /// Tokens of a segment that those have who cut weights among them.
  func groupCount(of tokenCount: Int) -> Int {
    evenRange(of: ringCount(of: tokenCount), part: rank, partCount: degree).count
  }

  /// Tokens of a segment that a part of the ring has: the own one, or another.
  func ringCount(of tokenCount: Int, at rank: Int? = nil) -> Int {
    evenRange(of: tokenCount, part: rank ?? ringRank, partCount: ringDegree).count
  }
}

/// A network as a pass sees it: whose weights want a gradient, and the adapter if it runs.
struct NetworkTwin {
  static let sinusoidWidth = 256
  static let refinerRatio = 4

  let sizes: NetworkSizes
  let parameters: ParametersTwin
  var isTrainable = false
  var adapter: UpdateTwin?
  var adapterParameters: ParametersTwin?
  /// Nil: all tokens.
  var part: SequencePart?

  var width: Int { sizes.width }
  /// How many ranks cut the weights of blocks.
  private var cut: Int { part?.tensorDegree ?? 1 }

  /// - Shapes: noisy B·C·F·H·W → the same.
  func velocity(
    _ tape: TapeTwin, noisy: ValueTwin, sampleCount: Int, recomputedShare: Double = 0
  ) -> ValueTwin {
    inPass(tape, noisy) {
      let inputs = inputs(tape, noisy: noisy, sampleCount: sampleCount)
      let output =
        switch sizes.form {
        case .doubleAndSingleStream:
          forward(tape, inputs, sampleCount: sampleCount, recomputedShare: recomputedShare)
        case .multimodal(let form):
          multimodalForward(
            tape, inputs, form, sampleCount: sampleCount, recomputedShare: recomputedShare)
        }
      withExtendedLifetime(inputs) {}
      return output
    }
  }

  /// Video tokens after the last double block.
  func features(
    _ tape: TapeTwin, noisy: ValueTwin, sampleCount: Int, recomputedShare: Double
  ) -> ValueTwin {
    inPass(tape, noisy) {
      let inputs = inputs(tape, noisy: noisy, sampleCount: sampleCount)
      if case .multimodal(let form) = sizes.form {
        let features = multimodalFeatures(
          tape, inputs, form, sampleCount: sampleCount, recomputedShare: recomputedShare)
        withExtendedLifetime(inputs) {}
        return features
      }
      let stem = stem(tape, inputs, sampleCount: sampleCount)
      let video = runDoubleBlocks(
        tape, stem, sampleCount: sampleCount, recomputedShare: recomputedShare)[0]
      withExtendedLifetime((inputs, stem)) {}
      return video
    }
  }

  private var sets: [ParametersTwin] { [parameters] + (adapterParameters.map { [$0] } ?? []) }

  private func wantsGradient(_ inputs: [ValueTwin]) -> Bool {
    isTrainable || adapter?.isTrainable == true || inputs.contains(where: \.isTracked)
  }

  /// Runs a pass with the parameters outside of blocks in memory.
  private func inPass(
    _ tape: TapeTwin, _ noisy: ValueTwin, _ body: () -> ValueTwin
  ) -> ValueTwin {
    parameters.pack()
    return ParametersTwin.inBlock(
      nil, of: sets, on: tape, isDifferentiated: wantsGradient([noisy]), body)
  }

  struct Inputs {
    let hiddenStates: ValueTwin
    let text: ValueTwin
    let pooled: ValueTwin
  }

  private func inputs(_ tape: TapeTwin, noisy: ValueTwin, sampleCount: Int) -> Inputs {
    let textCount = sizes.textTokenCount * sizes.textWidth
    let nullText = parameter(tape, textCount)
    let nullPooled = parameter(tape, sizes.pooledWidth)
    // Their elements are copied once a sample, whatever block the values come from.
    let text = tape.gather(nullText, count: sampleCount * textCount)
    let pooled = tape.gather(nullPooled, count: sampleCount * sizes.pooledWidth)
    return Inputs(
      hiddenStates: withReferences(tape, noisy, sampleCount: sampleCount), text: text,
      pooled: pooled)
  }

  /// A parameter where it is used as a value: copied where it does not stay in memory.
  private func parameter(_ tape: TapeTwin, _ count: Int) -> ValueTwin {
    let copy =
      parameters.stage == .parameters && tape.isRecording
      ? tape.result(count) : parameters.held
    return tape.parameter(count, isTrainable: isTrainable, of: copy)
  }

  private func withReferences(
    _ tape: TapeTwin, _ noisy: ValueTwin, sampleCount: Int
  ) -> ValueTwin {
    guard sizes.inChannels != sizes.outChannels else { return noisy }
    let added = tape.result(sampleCount * (sizes.outChannels + 1) * sizes.latentArea)
    return tape.concatenate([noisy, ValueTwin(constant: added)])
  }

  // MARK: Transformer

  private func forward(
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

  private struct Stem {
    let video: ValueTwin
    let text: ValueTwin
    let condition: ValueTwin
  }

  private func stem(_ tape: TapeTwin, _ inputs: Inputs, sampleCount: Int) -> Stem {
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

  private func own(_ tape: TapeTwin, _ tokens: ValueTwin, tokenCount: Int) -> ValueTwin {
    guard let part else { return tokens }
    return tape.slice(tokens, count: tokens.count / tokenCount * part.count(of: tokenCount))
  }

  /// Attention over video and text, with its exchanges where the sequence is cut.
  private func jointAttention(
    _ tape: TapeTwin, query: ValueTwin, key: ValueTwin, value: ValueTwin, sampleCount: Int
  ) -> ValueTwin {
    guard let part else {
      return tape.attention(
        query: query, key: key, value: value, headCount: sizes.headCount,
        sampleCount: sampleCount, width: width)
    }
    let width = width / cut
    guard part.degree > 1 else {
      return ringAttention(
        tape, part, query: query, key: key, value: value, sampleCount: sampleCount)
    }
    let tokenCount = tokenCount(at: part.ringRank, of: part)
    let allCount = sampleCount * tokenCount * (width / part.degree)
    // Own tokens of the heads of others go out, tokens of others of the own heads come back.
    let ownSent = query.count / part.degree * (part.degree - 1)
    let othersSent = allCount - query.count / part.degree
    func scattered(_ x: ValueTwin) -> ValueTwin {
      tape.exchange(x, to: allCount, sentCount: ownSent, sentBackCount: othersSent)
    }
    let (q, k, v) = (scattered(query), scattered(key), scattered(value))
    let attended = ringAttention(
      tape, part, query: q, key: k, value: v, sampleCount: sampleCount)
    let result = tape.exchange(
      attended, to: query.count, sentCount: othersSent, sentBackCount: ownSent)
    withExtendedLifetime((q, k, v, attended)) {}
    return result
  }

  /// Attention of own heads, around the ring where there is one.
  private func ringAttention(
    _ tape: TapeTwin, _ part: SequencePart, query: ValueTwin, key: ValueTwin, value: ValueTwin,
    sampleCount: Int
  ) -> ValueTwin {
    let degree = part.degree * cut
    let (headCount, width) = (sizes.headCount / degree, width / degree)
    guard part.ringDegree > 1 else {
      return tape.attention(
        query: query, key: key, value: value, headCount: headCount, sampleCount: sampleCount,
        width: width)
    }
    return tape.ringAttention(
      query: query, key: key, value: value, headCount: headCount, width: width,
      blockCounts: (0..<part.ringDegree).map {
        sampleCount * tokenCount(at: $0, of: part) * width
      }, rank: part.ringRank, sampleCount: sampleCount)
  }

  /// Video and text tokens of a part of the ring.
  private func tokenCount(at rank: Int, of part: SequencePart) -> Int {
    part.ringCount(of: sizes.videoTokenCount, at: rank)
      + part.ringCount(of: sizes.textTokenCount, at: rank)
  }

  private func runDoubleBlocks(
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
    guard let part else { return tape.permuted(patches) }
    // The tokens of those who cut weights together, the group's part of the ring, then all of it.
    var gathered = patches
    let tokenSize = sampleCount * sizes.outChannels * sizes.patchVolume
    if part.tensorDegree > 1 {
      gathered = tape.gatherTokens(
        gathered, to: tokenSize * part.groupCount(of: sizes.videoTokenCount),
        peerCount: part.tensorDegree - 1)
    }
    if part.degree > 1 {
      gathered = tape.gatherTokens(
        gathered, to: tokenSize * part.ringCount(of: sizes.videoTokenCount),
        peerCount: part.degree - 1)
    }
    if part.ringDegree > 1 {
      gathered = tape.gatherTokens(
        gathered, to: sampleCount * sizes.latentCount, peerCount: part.ringDegree - 1)
    }
    return tape.permuted(gathered)
  }

  func run(
    _ block: Int, _ tape: TapeTwin, _ inputs: [ValueTwin], recomputedShare: Double,
    _ body: @escaping (TapeTwin, [ValueTwin]) -> [ValueTwin]
  ) -> [ValueTwin] {
    let isDifferentiated = wantsGradient(inputs)
    let sets = sets
    func run(_ tape: TapeTwin, _ inputs: [ValueTwin]) -> [ValueTwin] {
      ParametersTwin.inBlock(
        block, of: sets, isPart: cut > 1, on: tape, isDifferentiated: isDifferentiated
      ) { body(tape, inputs) }
    }
    guard isInEvenShare(block, share: recomputedShare) && isDifferentiated else {
      return run(tape, inputs)
    }
    return tape.recomputing(inputs, run)
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

  func mlp(
    _ tape: TapeTwin, _ x: ValueTwin, _ modulation: [ValueTwin], _ segments: [Int],
    _ sampleCount: Int
  ) -> ValueTwin {
    let hidden = gathered(
      tape, tape.layerNorm(x, width: width, scale: modulation[4], shift: modulation[3]),
      segments, sampleCount)
    let result = tape.gatedResidual(
      x, gate: modulation[5],
      rowLinear(
        tape, [tape.apply(adapted(tape, hidden, from: width, to: sizes.mlpWidth / cut))],
        from: sizes.mlpWidth, to: x.count))
    withExtendedLifetime(hidden) {}
    return result
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

  /// A linear layer that no adapter changes.
  func linear(
    _ tape: TapeTwin, _ x: ValueTwin, from inputWidth: Int, to outputWidth: Int
  ) -> ValueTwin {
    tape.linear(x, from: inputWidth, to: outputWidth, isTrainable: isTrainable)
  }

  func adapted(
    _ tape: TapeTwin, _ x: ValueTwin, from inputWidth: Int, to outputWidth: Int
  ) -> ValueTwin {
    tape.linear(
      x, from: inputWidth, to: outputWidth, isTrainable: isTrainable, update: adapter)
  }

  func square(_ tape: TapeTwin, _ x: ValueTwin) -> ValueTwin {
    adapted(tape, x, from: width, to: width)
  }

  /// Queries, keys or values of own heads.
  private func heads(_ tape: TapeTwin, _ x: ValueTwin) -> ValueTwin {
    adapted(tape, x, from: width, to: width / cut)
  }

  // MARK: Cut weights

  private func modulation(
    _ tape: TapeTwin, _ condition: ValueTwin, count: Int
  ) -> [ValueTwin] {
    let columns = linear(tape, condition, from: width, to: count * width / cut)
    return tape.chunks(
      cut == 1 ? columns : tape.gather(columns, to: columns.count * cut, peerCount: cut - 1),
      count: count)
  }

  /// Own tokens to all ranks that cut weights with this one.
  private func gathered(
    _ tape: TapeTwin, _ x: ValueTwin, _ segments: [Int], _ sampleCount: Int
  ) -> ValueTwin {
    guard let part, cut > 1 else { return x }
    let tokenCount = segments.reduce(0) { $0 + part.groupCount(of: $1) }
    return tape.gatherTwice(x, to: sampleCount * tokenCount * width, peerCount: cut - 1)
  }

  /// A row-parallel layer; `inputWidth` is that of all ranks, `count` the elements of own tokens.
  private func rowLinear(
    _ tape: TapeTwin, _ parts: [ValueTwin], from inputWidth: Int, to count: Int
  ) -> ValueTwin {
    let sums = tape.linear(
      parts: parts, from: inputWidth / cut, to: width, isTrainable: isTrainable, update: adapter)
    if cut == 1 { return sums }
    return tape.addBias(
      tape.scatterSum(sums, to: count, peerCount: cut - 1), isTrainable: isTrainable)
  }

  // MARK: Conditions

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

  private func refine(_ tape: TapeTwin, _ inputs: Inputs, sampleCount: Int) -> ValueTwin {
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
