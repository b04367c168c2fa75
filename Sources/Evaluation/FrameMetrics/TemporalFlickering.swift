// Temporal flickering as VBench defines it (dimension 3): higher is steadier.
//
//   S = (255 − mean over adjacent frames of mean over values |Iᵢ − Iᵢ₊₁|) / 255
//
// VBench takes static prompts after a filter by optical flow; there is no such filter here, so a
// clip that moves scores lower than one that stands still. Compare with the score of real clips.
// - Source: Huang et al. 2024 (2311.17982), vbench/temporal_flickering.py.

package enum TemporalFlickering {
  /// S of one clip, in [0, 1]; 1 for a single frame.
  package static func score(_ clip: PixelClip) -> Double {
    (255 - FrameDifference.meanMagnitude(clip)) / 255
  }
}
