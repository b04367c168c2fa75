// The transformer as the objectives see it: noisy latents, a time in [0, 1] and one condition per sample.
//
// A first frame enters by channels: C noisy + C reference (the first latent frame, zero after it) + 1 mask
// (one on the first frame), all zero where the condition is dropped. Text enters as embedded tokens, or
// as a learned null token with its pooled vector, parameters of ours beside those of diffusers. A network
// without a text mask sees every token that it is given, so there texts are as long as the null text: how
// many tokens of padding others of a batch need must not matter.
//
// Source: Magic-1-For-1, image conditioning (spec §7); classifier-free guidance (2207.12598) for dropping.

package import Autodiff
package import DenseKernels
import Tensors

/// A velocity model with conditions, over one flat parameter set: the transformer's and the null text.
package final class ConditionedTransformer<Scalar: KernelScalar> {
  package static var nullTextName: String { "conditioning.null_text" }
  package static var nullPooledName: String { "conditioning.null_pooled" }

  package let configuration: any TransformerConfiguration
  package let transformer: any DiffusionTransformer<Scalar>
  package var parameters: ParameterSet<Scalar> { transformer.parameters }
  /// Tokens of the null text.
  package var nullTokenCount: Int { parameters[Self.nullTextName].shape[0] }

  /// - Precondition: the set was made from `specifications(of:)`.
  package init(_ configuration: any TransformerConfiguration, parameters: ParameterSet<Scalar>) {
    self.configuration = configuration
    transformer = configuration.transformer(parameters)
    precondition(
      parameters[Self.nullTextName].shape.last == configuration.textEmbeddingWidth
        && parameters[Self.nullPooledName].count == configuration.pooledProjectionWidth,
      "the null text does not fit the transformer's text width")
  }

  /// The transformer's parameters, then ours.
  package static func specifications(
    of configuration: any TransformerConfiguration, nullTokenCount: Int = 1
  ) -> [ParameterSpecification] {
    configuration.parameterSpecifications + [
      ParameterSpecification(
        nullTextName, [nullTokenCount, configuration.textEmbeddingWidth], .normal(deviation: 1)),
      ParameterSpecification(nullPooledName, [configuration.pooledProjectionWidth], .zeros),
    ]
  }

  /// v(x_t, t, c).
  /// - Shapes: noisy [B, Cout, F, H, W] → the same.
  /// - Parameters:
  ///   - times: t in [0, 1] per sample.
  ///   - guidance: strength of an embedded guidance, used if the model has one.
  ///   - sequence: runs the blocks on a part of the tokens, or some of the blocks.
  /// - Precondition: frames, rows and columns are multiples of the patch.
  package func velocity(
    tape: Tape<Scalar>, noisy: Value<Scalar>, times: [Double], conditions: [Condition<Scalar>],
    guidance: Double = 1, adapter: Adapter<Scalar>? = nil, recomputedShare: Double = 0,
    sequence: (any SequenceParallel<Scalar>)? = nil
  ) -> Value<Scalar> {
    let output = inPass(tape, noisy, adapter, sequence) {
      transformer.forward(
        tape: tape,
        inputs(
          tape: tape, noisy: noisy, times: times, conditions: conditions, guidance: guidance,
          sequence),
        adapter: adapter, recomputedShare: recomputedShare, sequence: sequence)
    }
    precondition(
      output.shape == noisy.shape,
      "latents \(noisy.shape) give a velocity \(output.shape); sizes must be multiples of the patch"
    )
    return output
  }

  /// The mean of the video tokens after the last double block, [B, D].
  /// - Parameter sequence: as for `velocity`. All its ranks have the features, and on the way back the gradient at
  ///   `noisy`, whole.
  package func features(
    tape: Tape<Scalar>, noisy: Value<Scalar>, times: [Double], conditions: [Condition<Scalar>],
    guidance: Double = 1, adapter: Adapter<Scalar>? = nil, recomputedShare: Double = 0,
    sequence: (any SequenceParallel<Scalar>)? = nil
  ) -> Value<Scalar> {
    let noisy = sequence?.stage?.sharingGradient(of: noisy, on: tape) ?? noisy
    return inPass(tape, noisy, adapter, sequence) {
      transformer.features(
        tape: tape,
        inputs(
          tape: tape, noisy: noisy, times: times, conditions: conditions, guidance: guidance,
          sequence),
        adapter: adapter, recomputedShare: recomputedShare, sequence: sequence)
    }
  }

  /// Runs a pass with the parameters outside of blocks in memory.
  private func inPass(
    _ tape: Tape<Scalar>, _ noisy: Value<Scalar>, _ adapter: Adapter<Scalar>?,
    _ sequence: (any SequenceParallel<Scalar>)?, _ body: () -> Value<Scalar>
  ) -> Value<Scalar> {
    let sets = [parameters] + (adapter.map { [$0.set.parameters] } ?? [])
    return tape.inBlock(
      "", of: sets, extent: sequence?.extent.outsideOfBlocks ?? .whole,
      isDifferentiated: noisy.isTracked || sets.contains(where: \.isTrainable), body)
  }

  /// What a pass needs to know of a batch.
  private func inputs(
    tape: Tape<Scalar>, noisy: Value<Scalar>, times: [Double], conditions: [Condition<Scalar>],
    guidance: Double, _ sequence: (any SequenceParallel<Scalar>)?
  ) -> TransformerInputs<Scalar> {
    guard sequence?.stage?.isFirst ?? true else {
      return outline(tape: tape, noisy: noisy, times: times, conditions: conditions)
    }
    return inputs(
      tape: tape, noisy: noisy, times: times, conditions: conditions, guidance: guidance,
      isCounted: sequence?.canonical?.ofShared.isCounted ?? true)
  }

  /// The transformer's inputs for a batch.
  /// - Parameter isCounted: whether this rank's gradient of the null text is the one that counts.
  package func inputs(
    tape: Tape<Scalar>, noisy: Value<Scalar>, times: [Double], conditions: [Condition<Scalar>],
    guidance: Double, isCounted: Bool = true
  ) -> TransformerInputs<Scalar> {
    precondition(
      noisy.shape.count == 5 && noisy.shape[0] == conditions.count
        && times.count == conditions.count,
      "\(conditions.count) conditions and \(times.count) times for latents \(noisy.shape)")
    precondition(
      configuration.takesTextMask
        || conditions.compactMap(\.text).allSatisfy {
          $0.mask.count == nullTokenCount && !$0.mask.contains(0)
        }, "a text that is not \(nullTokenCount) visible tokens, for a network without a text mask")
    let text = TextBatch(
      conditions.map(\.text), tape: tape, nullText: parameters[Self.nullTextName],
      nullPooled: parameters[Self.nullPooledName], isCounted: isCounted)
    return TransformerInputs(
      hiddenStates: withReferences(noisy, conditions.map(\.reference), tape: tape),
      timestep: times.map { 1_000 * $0 }, encoderHiddenStates: text.embeddings,
      encoderAttentionMask: text.mask, pooledProjections: text.pooled,
      guidance: configuration.guidanceEmbeds
        ? Array(repeating: 1_000 * guidance, count: conditions.count) : nil)
  }

  /// What the later stages of a pipeline need to know of a batch: its sizes and masks.
  private func outline(
    tape: Tape<Scalar>, noisy: Value<Scalar>, times: [Double], conditions: [Condition<Scalar>]
  ) -> TransformerInputs<Scalar> {
    let text = TextMask(conditions.map(\.text), nullCount: nullTokenCount)
    func empty(_ shape: [Int]) -> Value<Scalar> { Value(constant: tape.result(shape + [0])) }
    return TransformerInputs(
      hiddenStates: noisy, timestep: times,
      encoderHiddenStates: empty([conditions.count, text.tokenCount]),
      encoderAttentionMask: text.mask, pooledProjections: empty([conditions.count]))
  }

  private func withReferences(
    _ noisy: Value<Scalar>, _ references: [Tensor<Scalar>?], tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let (batch, channels, frames) = (noisy.shape[0], noisy.shape[1], noisy.shape[2])
    let frameSize = noisy.shape[3] * noisy.shape[4]
    guard configuration.inChannels != channels else {
      precondition(
        references.allSatisfy { $0 == nil },
        "a first frame for a model of \(channels) input channels; it needs \(2 * channels + 1)")
      return noisy
    }
    precondition(
      configuration.inChannels == 2 * channels + 1,
      "a model of \(configuration.inChannels) input channels for latents of \(channels); a "
        + "first-frame model has \(2 * channels + 1)")
    let added = tape.result([batch, channels + 1] + noisy.shape[2...], zeroed: true)
    for (sample, reference) in references.enumerated() {
      guard let reference else { continue }
      precondition(
        reference.shape == [channels] + noisy.shape[3...],
        "a first frame \(reference.shape) for latents \(noisy.shape)")
      let target = added.rows(sample..<(sample + 1)).buffer
      for channel in 0..<channels {
        let start = channel * frames * frameSize
        target[start..<(start + frameSize)]
          .copy(from: reference.buffer[(channel * frameSize)..<((channel + 1) * frameSize)])
      }
      let start = channels * frames * frameSize
      target[start..<(start + frameSize)].fill(with: 1)
    }
    return tape.concatenate([noisy, Value(constant: added)], along: 1)
  }
}

/// Which tokens of a batch of texts are valid, all padded to the longest.
private struct TextMask {
  let tokenCount: Int
  let mask: [UInt8]

  init<Scalar>(_ texts: [TextCondition<Scalar>?], nullCount: Int) {
    let tokenCount = texts.reduce(0) { max($0, $1?.embeddings.shape[0] ?? nullCount) }
    self.tokenCount = tokenCount
    mask = texts.flatMap { text in
      let valid = text?.mask ?? Array(repeating: 1, count: nullCount)
      return valid + Array(repeating: 0, count: tokenCount - valid.count)
    }
  }
}

/// Texts of a batch, padded to the longest with masked zeros.
private struct TextBatch<Scalar: KernelScalar> {
  /// [B, T, E].
  let embeddings: Value<Scalar>
  let mask: [UInt8]
  /// [B, P].
  let pooled: Value<Scalar>

  init(
    _ texts: [TextCondition<Scalar>?], tape: Tape<Scalar>, nullText: Parameter<Scalar>,
    nullPooled: Parameter<Scalar>, isCounted: Bool
  ) {
    let nullValue = tape.use(nullText, isCounted: isCounted)
    let nullPooledValue = tape.use(nullPooled, isCounted: isCounted)
    let width = nullText.shape[1]
    let validity = TextMask(texts, nullCount: nullText.shape[0])
    let tokenCount = validity.tokenCount
    mask = validity.mask
    embeddings = tape.concatenate(
      texts.map { text in
        let tokens = text.map { Value(constant: $0.embeddings) } ?? nullValue
        let padding = tokenCount - tokens.shape[0]
        let padded =
          padding == 0
          ? tokens
          : tape.concatenate(
            [tokens, Value(constant: tape.result([padding, width], zeroed: true))], along: 0)
        return padded.reshaped([1, tokenCount, width])
      }, along: 0)
    pooled = tape.concatenate(
      texts.map { text in
        let vector = text.map { Value(constant: $0.pooled) } ?? nullPooledValue
        return vector.reshaped([1, vector.tensor.count])
      }, along: 0)
  }
}
