// The seam for sequence parallelism: a network runs on its own tokens and asks for all of them where it
// needs them, in attention and at its end. Who the others are, nobody here knows.
//
// All parts run the same operations in the same order. Gradients of parameters are then partial: those of the
// whole sequence are their sum over the parts.

package import Autodiff
package import DenseKernels
import Tensors

/// One part's view of a sequence that is cut among several. All operations differentiate.
package protocol SequenceParallel<Scalar>: AnyObject {
  associatedtype Scalar: KernelScalar

  /// The same, where the ranks also cut the weights of blocks; nil: each block is computed with whole ones.
  var tensor: (any TensorParallel<Scalar>)? { get }

  /// The stretch of blocks that these ranks run; nil: all blocks.
  var stage: (any PipelineStage<Scalar>)? { get }

  /// How sums over tokens are made so that their bits do not depend on the parts; nil: as is fastest.
  var canonical: (any CanonicalSums<Scalar>)? { get }

  /// How these ranks cut the tokens; nil where they have a stage of the blocks, and all tokens.
  var tokens: (any SequenceParallel<Scalar>)? { get }

  /// Whether nobody has other tokens: then it is here for its sums alone.
  var isWhole: Bool { get }

  /// Among how many the tokens are cut; of as many each has one.
  var partCount: Int { get }

  /// Own tokens of a segment of `tokenCount`: contiguous, perhaps none.
  func ownRange(of tokenCount: Int) -> Range<Int>

  /// The part of a segment that the ranks have together which exchange tokens against heads.
  func stretch(of tokenCount: Int) -> Range<Int>

  /// Which of those ranks this is.
  var headShare: (part: Int, partCount: Int) { get }

  /// An operand of the next attention, as soon as it is made: what it exchanges for that begins here, and goes on
  /// beside what is computed until it arrives.
  /// - Parameter segments: tokens of each segment; own tokens are the own ranges one after the other.
  /// - Shapes: x [B, l, N·K] → what `attention` takes.
  func operand(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> AttentionOperand<Scalar>

  /// Attention of the own queries to the keys of all parts. Its operands have arrived.
  /// - Parameters:
  ///   - query: of own tokens; of the first segments alone where the others have no queries.
  ///   - mask: of the keys of all parts.
  ///   - segments: tokens of each segment; own tokens are the own ranges one after the other.
  /// - Shapes: query, key, value as `operand` gives them → [B, l, N·K].
  func attention(
    query: Value<Scalar>, key: Value<Scalar>, value: Value<Scalar>, headCount: Int,
    mask: AttentionMask?, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar>
  /// Own tokens → all tokens of a segment. On the way back a part keeps the gradient of its own tokens: the
  /// same loss is taken of the result by all parts.
  /// - Shapes: [B, l, C] → [B, L, C].
  func gatherTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar>

  /// The exchange of tokens against heads by itself, among the parts that have one piece of the tokens; nil where
  /// each has a piece of its own.
  var headExchange: (any HeadExchange<Scalar>)? { get }

  /// Who has the other pieces of the tokens; nil: nobody.
  var keyRing: (any KeyRing<Scalar>)? { get }
}

/// Something that an attention needs; it may be on its way.
package struct AttentionOperand<Scalar: KernelScalar> {
  /// Called once, and for query, key and value in the order in which they were made.
  package let arrive: () -> Value<Scalar>

  package init(arrive: @escaping () -> Value<Scalar>) { self.arrive = arrive }

  /// What is there already.
  package init(_ x: Value<Scalar>) { self.init { x } }
}

/// A sequence whose parts keep their queries, while the keys and values of all of them come by; for networks with
/// several attentions.
package protocol KeyRing<Scalar>: SequenceParallel {
  /// Own tokens → all tokens of a segment, as `HeadExchange.shareTokens`: for keys so few that all may have them.
  /// - Shapes: [B, l, C] → [B, L, C].
  func shareTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar>
}

/// A sequence whose parts exchange tokens against heads, for networks with several attentions. All tokens are those
/// of the piece that these parts have.
package protocol HeadExchange<Scalar>: SequenceParallel {
  /// Parts of the heads.
  var degree: Int { get }
  /// Which of the attentions of a Multimodal Diffusion Block are to see all tokens.
  var plan: SequencePlan { get }

  /// Own tokens of all heads → all tokens of own heads.
  /// - Parameter segments: as for `attention`.
  /// - Shapes: [B, l, N·K] → [B, L, N·K / degree].
  /// - Precondition: the degree divides the heads.
  func scatterHeads(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar>
  /// The inverse of `scatterHeads`.
  /// - Shapes: [B, L, N·K / degree] → [B, l, N·K].
  func gatherHeads(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> Value<Scalar>
  /// Own tokens → all tokens of a segment, with which every part goes on in its own way: on the way back
  /// the gradients that all parts have for the own tokens add up.
  /// - Shapes: [B, l, C] → [B, L, C].
  func shareTokens(
    _ x: Value<Scalar>, tokenCount: Int, on tape: Tape<Scalar>
  ) -> Value<Scalar>
}

extension SequenceParallel {
  package var tensor: (any TensorParallel<Scalar>)? { nil }
  package var stage: (any PipelineStage<Scalar>)? { nil }
  package var canonical: (any CanonicalSums<Scalar>)? { nil }
  package var isWhole: Bool { false }

  package func stretch(of tokenCount: Int) -> Range<Int> { ownRange(of: tokenCount) }
  package var headShare: (part: Int, partCount: Int) { (0, 1) }

  package var tokens: (any SequenceParallel<Scalar>)? { self }

  package func operand(
    _ x: Value<Scalar>, segments: [Int], on tape: Tape<Scalar>
  ) -> AttentionOperand<Scalar> { AttentionOperand(x) }

  /// Whether the gradients that all parts and stages have alike are counted here: by the first part, in the stage
  /// that owns what is outside of blocks.
  package var countsShared: Bool {
    (stage?.isFirst ?? true) && ownRange(of: partCount).lowerBound == 0
  }

  /// All tokens → own tokens. On the way back the gradients of all come together again: for what all parts have, as
  /// a sample that was not made by a network, whose parameters would be counted by each.
  /// - Shapes: [B, L, C] → [B, l, C].
  func ownTokens(_ x: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar> {
    let tokenCount = x.shape[1]
    let own = tape.slice(x.detached, along: 1, ownRange(of: tokenCount)).tensor
    return tape.record(own, from: [x]) { [self, unowned tape] outputGradient, gradients in
      guard let dx = gradients.place(of: 0) else { return }
      let all = gatherTokens(
        Value(constant: outputGradient), tokenCount: tokenCount, on: tape
      ).tensor.buffer
      if dx.accumulates { Scalar.add(1, all, to: dx.buffer) } else { dx.buffer.copy(from: all) }
    }
  }

  /// What each part adds to a sum → the sum, on every part, in the one tree over the parts. On the way back a part
  /// gets the gradient of the sum: the same loss is taken of it by all parts.
  func sumOfParts(_ x: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar> {
    guard partCount > 1 else { return x }
    // A token of each part.
    let own = x.tensor.reshaped([1, 1, x.tensor.count])
    let parts = gatherTokens(Value(constant: own), tokenCount: partCount, on: tape)
    return tape.completed(x, by: parts.tensor)
  }

  /// How much of the parameters of blocks these ranks compute with.
  package var extent: UnitExtent {
    switch (stage != nil, tensor != nil) {
    case (false, false): .whole
    case (false, true): .part
    case (true, false): .stage
    case (true, true): .partOfStage
    }
  }
  package var headExchange: (any HeadExchange<Scalar>)? { nil }
  package var keyRing: (any KeyRing<Scalar>)? { nil }
}
