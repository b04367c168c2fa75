// Features of a network: the mean over the video tokens after its last block of two streams, for the discriminator.
//
// Every part of the tokens adds its own to the mean; in a pipeline the stage that has that block makes it and tells
// it to the others. So all ranks have it, and the head runs alike on all of them.
// Source: the W2SVD figure's tap; mean over tokens: specification 1.7.

import Autodiff
import DenseKernels

/// What a pass for features runs here.
enum FeaturesRole<Scalar: KernelScalar> {
  /// A stage that runs these blocks, and hands its state on to the one that makes the features.
  case before(any PipelineStage<Scalar>, source: Int, blocks: Range<Int>)
  /// The features come behind these blocks.
  case source(blocks: Range<Int>)
  /// A stage that gets the features from an earlier one.
  case behind(any PipelineStage<Scalar>, source: Int)

  /// - Parameters:
  ///   - stage: nil: all blocks are run here.
  ///   - featureBlockCount: blocks before the features, of `blockCount`.
  init(_ stage: (any PipelineStage<Scalar>)?, featureBlockCount: Int, blockCount: Int) {
    let wanted = 0..<featureBlockCount
    guard let stage else {
      self = .source(blocks: wanted)
      return
    }
    let source = stage.stage(ofBlock: max(featureBlockCount - 1, 0), of: blockCount)
    let blocks = stage.blocks(of: blockCount).clamped(to: wanted)
    self =
      if stage.stageIndex < source {
        .before(stage, source: source, blocks: blocks)
      } else if stage.stageIndex > source {
        .behind(stage, source: source)
      } else {
        .source(blocks: blocks)
      }
  }
}

extension LayerScope {
  /// The mean over the video tokens of each sample, of which x has the own ones.
  /// - Parameters:
  ///   - segment: tokens of a row of x, all parts together.
  ///   - sequence: who has the others.
  /// - Shapes: x [B·F, l, D] → [B, D].
  func tokenMean(
    _ x: Value<Scalar>, sampleCount: Int, segment: Int,
    sequence: (any SequenceParallel<Scalar>)?
  ) -> Value<Scalar> {
    let own = tape.meanPart(
      of: x, sampleCount: sampleCount, tokenCount: x.shape[0] / sampleCount * segment,
      sums: over([segment]).sums)
    return sequence?.sumOfParts(own, on: tape) ?? own
  }
}
