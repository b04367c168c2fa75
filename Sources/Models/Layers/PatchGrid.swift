// Latents cut into patches of pt frames × p rows × p columns, and put together again.

import Autodiff
import DenseKernels

struct PatchGrid {
  let sampleCount: Int
  /// Patches along frames, rows, columns.
  let sizes: [Int]
  /// Frames, rows, columns of a patch.
  let patch: [Int]
  let tokenCount: Int

  /// - Parameter latents: [B, C, F, H, W].
  init(latents: [Int], _ configuration: HunyuanVideoConfiguration) {
    let patch = [
      configuration.temporalPatchSize, configuration.patchSize, configuration.patchSize,
    ]
    sampleCount = latents[0]
    self.patch = patch
    sizes = (0..<3).map { latents[2 + $0] / patch[$0] }
    tokenCount = sizes.reduce(1, *)
  }

  /// [B, C, F, H, W] → [B, L, C·pt·p·p], the order of a convolution's weight.
  func patches<Scalar>(of latents: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar> {
    let channelCount = latents.shape[1]
    var x = latents
    for axis in 0..<3 where x.shape[2 + axis] != sizes[axis] * patch[axis] {
      x = tape.slice(x, along: 2 + axis, 0..<(sizes[axis] * patch[axis]))
    }
    let split = x.reshaped(
      [sampleCount, channelCount] + (0..<3).flatMap { [sizes[$0], patch[$0]] })
    return tape.permuted(split, axes: [0, 2, 4, 6, 1, 3, 5, 7])
      .reshaped([sampleCount, tokenCount, channelCount * patch.reduce(1, *)])
  }

  /// [B, L, C·pt·p·p] → [B, C, F, H, W].
  func latents<Scalar>(of patches: Value<Scalar>, on tape: Tape<Scalar>) -> Value<Scalar> {
    let channelCount = patches.shape[2] / patch.reduce(1, *)
    return tape.permuted(
      patches.reshaped([sampleCount] + sizes + [channelCount] + patch),
      axes: [0, 4, 1, 5, 2, 6, 3, 7]
    ).reshaped([sampleCount, channelCount] + (0..<3).map { sizes[$0] * patch[$0] })
  }
}
