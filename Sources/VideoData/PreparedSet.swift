// The result of the prepare phase: scaled frames of every source, the fitted codec, and what is
// needed to draw clips of them. Random crops are read, cut and encoded when they are drawn.
//
// On disk (`PreparedSet+Storage.swift`) it is a folder that is either whole or does not exist, and
// that is used again as long as the inputs and the options are the same.

package struct PreparedSet: Sendable {
  /// One video: a person, as far as reports go.
  package struct Source: Sendable {
    package let name: String
    /// Scaled frames, the kept window of them.
    package let frames: StoredFrames
    package let framesPerSecond: Double
    package let windows: ClipWindows
    /// PSNR of the codec on clips of the held-out tail (of all frames where nothing is held out).
    package let codecPSNR: Double
  }

  package let sources: [Source]
  package let codec: LinearCausalCodec
  package let options: PreparationOptions
  /// PSNR in dB of the codec over the held-out clips of all sources together.
  package let codecPSNR: Double
  /// Whether the people are drawn by `ProceduralFace`.
  package let isProcedural: Bool
  /// Changes with the inputs, the options and the format.
  package let fingerprint: String
  /// What a network learns from that is trained on this set.
  package var dataFingerprint: DataFingerprint {
    DataFingerprint(inputs: fingerprint, codec: codec.fingerprint)
  }
  /// Files that were left out, each with its reason.
  package let skipped: [String]

  /// What draws training clips; the order depends on `seed` only.
  package func sampler(seed: UInt64) -> ClipSampler {
    ClipSampler(
      sources: sources.map {
        ClipSampler.Source(height: $0.frames.height, width: $0.frames.width, windows: $0.windows)
      }, seed: seed, cropSize: options.cropSize, mirrors: options.mirrors,
      reverses: options.reverses)
  }

  /// The pixels of a sample, F×crop×crop×3, read from the folder of the set.
  /// - Throws: `damagedSet` where that is not what was written.
  package func clip(_ sample: ClipSample) throws -> Video {
    let frames = sources[sample.source].frames
    var clip = try frames.read(sample.start..<sample.start + options.clipFrameCount)
      .cropped(
        top: sample.top, left: sample.left, height: options.cropSize, width: options.cropSize)
    if sample.isMirrored { clip = clip.mirrored }
    if sample.isReversed { clip = clip.reversed }
    return clip
  }

  /// C, F, H, W of every sample's latents.
  package var latentShape: [Int] {
    codec.latentShape(
      frameCount: options.clipFrameCount, height: options.cropSize, width: options.cropSize)
  }
}
