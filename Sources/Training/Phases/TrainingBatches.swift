// The samples of a step: which clip, its latents, and what it is conditioned on. All of it is a pure
// function of the global sample counter (contract 4.1), so any rank can make any microbatch.

package import Basics
import DenseKernels
package import Models
package import Tensors
package import VideoData

/// One microbatch.
package struct TrainingBatch {
  /// [B, C, F, H, W].
  package let latents: Tensor<Float>
  package let conditions: [Condition<Float>]
  /// Global sample counters, for random streams.
  package let counters: [Int]
}

package struct TrainingBatches {
  package let prepared: PreparedSet
  package let seed: UInt64
  /// Samples of a step.
  package let batchSize: Int
  package let samplesPerMicrobatch: Int
  package let conditionDropout: Double
  package let texts: ConditionTexts?
  /// Counters of this phase start here, so that no two phases draw the same samples.
  package let firstCounter: Int
  private let sampler: ClipSampler
  private let context: RunContext

  package init(
    _ prepared: PreparedSet, context: RunContext, texts: ConditionTexts?, firstCounter: Int
  ) {
    self.prepared = prepared
    self.context = context
    self.texts = texts
    self.firstCounter = firstCounter
    seed = context.seed
    batchSize = context.batchSize
    samplesPerMicrobatch = context.configuration.batch.samples
    conditionDropout = context.configuration.data.conditionDropout
    sampler = prepared.sampler(seed: seed)
  }

  /// - Parameter step: counted from 0 within the phase.
  package func batch(step: Int, microbatch: Int, in arena: Arena) -> TrainingBatch {
    let first = firstCounter + step * batchSize + microbatch * samplesPerMicrobatch
    let counters = (0..<samplesPerMicrobatch).map { first + $0 }
    let samples = counters.map { sampler.sample(at: $0) }
    let latents = Tensor<Float>(
      samples.flatMap { prepared.codec.encode(context.clip($0, of: prepared)).values },
      shape: [samples.count] + prepared.latentShape, in: arena,
      booking: Booking(.common, .activations))
    let conditions = zip(counters, samples).enumerated().map { index, pair in
      let (counter, sample) = pair
      let isDropped =
        RandomStream(seed: seed, purpose: .conditionDropout, sample: counter).uniform(at: 0)
        < conditionDropout
      return Condition<Float>(
        reference: isDropped ? nil : Self.firstFrame(of: latents, sample: index, in: arena),
        text: texts?[source: sample.source])
    }
    return TrainingBatch(latents: latents, conditions: conditions, counters: counters)
  }

  /// The first latent frame of a sample, [C, H, W].
  package static func firstFrame(
    of latents: Tensor<Float>, sample: Int, in arena: Arena
  ) -> Tensor<Float> {
    let (channels, frames) = (latents.shape[1], latents.shape[2])
    let frameSize = latents.shape[3] * latents.shape[4]
    let reference = Tensor<Float>(
      shape: [channels, latents.shape[3], latents.shape[4]], in: arena,
      booking: Booking(.common, .activations))
    let clip = latents.rows(sample..<(sample + 1)).buffer
    for channel in 0..<channels {
      let start = channel * frames * frameSize
      reference.buffer[(channel * frameSize)..<((channel + 1) * frameSize)]
        .copy(from: clip[start..<(start + frameSize)])
    }
    return reference
  }
}

extension RunContext {
  /// The pixels of a sample; black where they cannot be read, which all ranks hear of at the next agreement.
  func clip(_ sample: ClipSample, of prepared: PreparedSet) -> Video {
    let options = prepared.options
    let byteCount = options.clipFrameCount * options.cropSize * options.cropSize * 3
    var clip = Video(
      frameCount: options.clipFrameCount, height: options.cropSize, width: options.cropSize,
      bytes: [UInt8](repeating: 0, count: byteCount))
    attempt { clip = try prepared.clip(sample) }
    return clip
  }

  /// A stream for each sample of a batch at a step.
  package func streams(
    _ purpose: RandomPurpose, step: Int, counters: [Int]
  ) -> [RandomStream] {
    counters.map { RandomStream(seed: seed, purpose: purpose, step: step, sample: $0) }
  }
}
