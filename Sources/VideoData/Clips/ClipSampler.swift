// From a global sample counter to a clip (contract 4.1): nothing is stored, so a resumed run draws
// what the undisturbed one would have drawn, on any number of ranks.
//
// First a source is drawn, every source equally often however long it is (else the longest video
// would be most of what is learned), then a window of it, a crop, mirroring and time reversal.

package import Basics

/// One clip of a source: where it lies and how it is turned.
package struct ClipSample: Hashable, Sendable {
  package let source: Int
  package let start: Int
  package let top: Int
  package let left: Int
  package let isMirrored: Bool
  package let isReversed: Bool

  package init(
    source: Int, start: Int, top: Int, left: Int, isMirrored: Bool = false, isReversed: Bool = false
  ) {
    self.source = source
    self.start = start
    self.top = top
    self.left = left
    self.isMirrored = isMirrored
    self.isReversed = isReversed
  }
}

package struct ClipSampler: Sendable {
  /// What the sampler has to know of a source.
  package struct Source: Hashable, Sendable {
    package let height: Int
    package let width: Int
    package let windows: ClipWindows

    package init(height: Int, width: Int, windows: ClipWindows) {
      self.height = height
      self.width = width
      self.windows = windows
    }
  }

  package let sources: [Source]
  package let seed: UInt64
  /// Side of the square crop in pixels.
  package let cropSize: Int
  /// Mirror half of the clips.
  package let mirrors: Bool
  /// Play half of the clips backward.
  package let reverses: Bool

  /// - Precondition: at least one source; every frame has room for the crop.
  package init(sources: [Source], seed: UInt64, cropSize: Int, mirrors: Bool, reverses: Bool) {
    require(!sources.isEmpty, "a sampler of no sources")
    for source in sources {
      require(
        source.height >= cropSize && source.width >= cropSize,
        "a crop of \(cropSize) from frames of \(source.height)×\(source.width)")
    }
    self.sources = sources
    self.seed = seed
    self.cropSize = cropSize
    self.mirrors = mirrors
    self.reverses = reverses
  }

  /// The training clip of a global sample counter.
  /// - Parameter purpose: `.clipChoice`, or `.trueClipChoice` for an independent second draw. Its
  ///   augmentation numbers are `.augmentation`'s elements from 4 · purpose on.
  package func sample(at counter: Int, purpose: RandomPurpose = .clipChoice) -> ClipSample {
    let (step, index) = (counter >> 31, counter & 0x7FFF_FFFF)
    let choice = RandomStream(seed: seed, purpose: purpose, step: step, sample: index)
    let turn = RandomStream(seed: seed, purpose: .augmentation, step: step, sample: index)
    let firstElement = Int(purpose.rawValue) * 4
    let number = choice.integer(below: sources.count, at: 0)
    let source = sources[number]
    return ClipSample(
      source: number,
      start: choice.integer(below: source.windows.trainStarts.count, at: 1),
      top: turn.integer(below: source.height - cropSize + 1, at: firstElement),
      left: turn.integer(below: source.width - cropSize + 1, at: firstElement + 1),
      isMirrored: mirrors && turn.integer(below: 2, at: firstElement + 2) == 1,
      isReversed: reverses && turn.integer(below: 2, at: firstElement + 3) == 1)
  }

  /// Held-out clips in order, with the crop in the middle and nothing turned.
  /// - Parameter spacing: frames between the starts of two clips of a source; nil: no overlap.
  package func heldOutSamples(spacing: Int? = nil) -> [ClipSample] {
    sources.indices.flatMap { number in
      let source = sources[number]
      let starts = source.windows.heldOutStarts
      return stride(
        from: starts.lowerBound, to: starts.upperBound,
        by: spacing ?? source.windows.clipFrameCount
      ).map { centered(source: number, start: $0) }
    }
  }

  /// The clip of a source from `start` on with the crop in the middle.
  package func centered(source: Int, start: Int) -> ClipSample {
    ClipSample(
      source: source, start: start, top: (sources[source].height - cropSize) / 2,
      left: (sources[source].width - cropSize) / 2)
  }
}
