// The conditioned transformer over sizes: the twin of Models, operation by operation. Names follow those
// files; B samples, L video tokens, T text tokens, D width. What follows here is what all networks have in
// common; HunyuanVideo's blocks: NetworkTwin+DualStream.swift, those of Vchitect-2.0:
// NetworkTwin+Multimodal.swift.

import Basics
import MeshLayout

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
  /// Nil: all blocks.
  var stage: StageTwin?

  var width: Int { sizes.width }
  /// How many ranks cut the weights of blocks.
  var cut: Int { part?.tensorDegree ?? 1 }
  private var blockExtent: ExtentTwin {
    stage == nil ? cut > 1 ? .part : .whole : cut > 1 ? .partOfStage : .stage
  }

  /// - Shapes: noisy B·C·F·H·W → the same.
  func velocity(
    _ tape: TapeTwin, noisy: ValueTwin, sampleCount: Int, recomputedShare: Double = 0
  ) -> ValueTwin {
    inPass(tape, noisy) {
      let blocks = stage?.blocks(of: sizes.blockCount) ?? 0..<sizes.blockCount
      let state = state(
        behind: blocks, tape, noisy, sampleCount: sampleCount, recomputedShare: recomputedShare)
      if let stage, !stage.isLast {
        return handOn(tape, consume state, stage, count: sampleCount * sizes.latentCount)
      }
      let output = project(tape, consume state, sampleCount: sampleCount)
      if let stage { publish(output, tape, stage) }
      return output
    }
  }

  /// The mean of the video tokens after the last block of two streams.
  func features(
    _ tape: TapeTwin, noisy: ValueTwin, sampleCount: Int, recomputedShare: Double
  ) -> ValueTwin {
    let noisy = stage.map { sharingGradient(of: noisy, tape, $0) } ?? noisy
    return inPass(tape, noisy) {
      let wanted = 0..<sizes.doubleBlockCount
      let count = sampleCount * width
      let source = stage?.featuresSource(behind: wanted.count, of: sizes.blockCount) ?? 0
      if let stage, stage.index > source {
        stage.wait(for: .features(stage: source))
        return ValueTwin(constant: tape.result(count))
      }
      let state = state(
        behind: stage?.blocks(of: sizes.blockCount).clamped(to: wanted) ?? wanted, tape, noisy,
        sampleCount: sampleCount, recomputedShare: recomputedShare)
      if let stage, stage.index < source {
        return handOn(tape, consume state, stage, awaiting: .features(stage: source), count: count)
      }
      let mean = tokenMean(tape, consume state, to: count)
      if let stage { publish(mean, tape, stage, as: .features(stage: source)) }
      return mean
    }
  }

  private func tokenMean(_ tape: TapeTwin, _ state: consuming StateTwin, to count: Int) -> ValueTwin
  {
    let mean = sumOfParts(tape, tape.weightedTokenSum(state.streams[0], to: count))
    withExtendedLifetime(state) {}
    return mean
  }

  /// What blocks make of their first state.
  private func state(
    behind blocks: Range<Int>, _ tape: TapeTwin, _ noisy: ValueTwin, sampleCount: Int,
    recomputedShare: Double
  ) -> StateTwin {
    let first = firstState(before: blocks, tape, noisy, sampleCount: sampleCount)
    return switch sizes.form {
    case .doubleAndSingleStream:
      runBlocks(
        blocks, tape, consume first, sampleCount: sampleCount, recomputedShare: recomputedShare)
    case .multimodal(let form):
      runMultimodalBlocks(
        blocks, tape, consume first, form, sampleCount: sampleCount,
        recomputedShare: recomputedShare)
    }
  }

  /// What the first block begins with. Inputs of the pass are gone then.
  private func firstState(
    before blocks: Range<Int>, _ tape: TapeTwin, _ noisy: ValueTwin, sampleCount: Int
  ) -> StateTwin {
    guard stage?.isFirst ?? true else {
      return receive(
        tape, before: blocks.lowerBound, sampleCount: sampleCount, isTracked: noisy.isTracked)
    }
    let inputs = inputs(tape, noisy: noisy, sampleCount: sampleCount)
    defer { withExtendedLifetime(inputs) {} }
    return switch sizes.form {
    case .doubleAndSingleStream: embed(tape, inputs, sampleCount: sampleCount)
    case .multimodal: multimodalState(tape, inputs, sampleCount: sampleCount)
    }
  }

  private func project(
    _ tape: TapeTwin, _ state: consuming StateTwin, sampleCount: Int
  ) -> ValueTwin {
    let output =
      switch sizes.form {
      case .doubleAndSingleStream: dualStreamProjection(tape, state, sampleCount: sampleCount)
      case .multimodal: multimodalProjection(tape, state, sampleCount: sampleCount)
      }
    withExtendedLifetime(state) {}
    return output
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
      nil, of: sets, extent: stage == nil ? .whole : .stage, on: tape,
      isDifferentiated: wantsGradient([noisy]), body)
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

  // MARK: Blocks

  func run(
    _ block: Int, _ tape: TapeTwin, _ inputs: [ValueTwin], recomputedShare: Double,
    _ body: @escaping (TapeTwin, [ValueTwin]) -> [ValueTwin]
  ) -> [ValueTwin] {
    let isDifferentiated = wantsGradient(inputs)
    let sets = sets
    func run(_ tape: TapeTwin, _ inputs: [ValueTwin]) -> [ValueTwin] {
      ParametersTwin.inBlock(
        block, of: sets, extent: blockExtent, on: tape, isDifferentiated: isDifferentiated
      ) { body(tape, inputs) }
    }
    guard isInEvenShare(block, share: recomputedShare) && isDifferentiated else {
      return run(tape, inputs)
    }
    return tape.recomputing(inputs, run)
  }

  // MARK: Layers

  /// A linear layer that no adapter changes.
  func linear(
    _ tape: TapeTwin, _ x: ValueTwin, from inputWidth: Int, to outputWidth: Int,
    partials: Int = 0
  ) -> ValueTwin {
    tape.linear(
      x, from: inputWidth, to: outputWidth, isTrainable: isTrainable, partials: partials)
  }

  func adapted(
    _ tape: TapeTwin, _ x: ValueTwin, from inputWidth: Int, to outputWidth: Int,
    partials: Int = 0
  ) -> ValueTwin {
    tape.linear(
      x, from: inputWidth, to: outputWidth, isTrainable: isTrainable, update: adapter,
      partials: partials)
  }
}
