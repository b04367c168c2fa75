// The seam for sequence parallelism: a network runs on its own tokens and asks for all of them where it
// needs them, in attention and at its end. Who the others are, nobody here knows.
//
// All parts run the same operations in the same order. Gradients of parameters are then partial: those of the
// whole sequence are their sum over the parts.

package import Autodiff
package import DenseKernels

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

  /// The exchange of tokens against heads by itself; nil where attention is more than that.
  var headExchange: (any HeadExchange<Scalar>)? { get }
}

/// Something that an attention needs; it may be on its way.
package struct AttentionOperand<Scalar: KernelScalar> {
  /// Called once, and for query, key and value in the order in which they were made.
  package let arrive: () -> Value<Scalar>

  package init(arrive: @escaping () -> Value<Scalar>) { self.arrive = arrive }

  /// What is there already.
  package init(_ x: Value<Scalar>) { self.init { x } }
}

/// A sequence whose parts exchange tokens against heads, for networks with several attentions.
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
}
