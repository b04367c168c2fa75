// Latents cut into patches of pt frames × p rows × p columns, and put together again.

import Autodiff
import DenseKernels

struct PatchGrid {
  /// Order of a patch's elements as a projection puts them out.
  enum ElementOrder {
    /// Channel, frame, row, column: the order of a convolution's weight.
    case channelsFirst
    /// Frame, row, column, channel.
    case channelsLast
  }

  let sampleCount: Int
  /// Patches along frames, rows, columns.
  let sizes: [Int]
  /// Frames, rows, columns of a patch.
  let patch: [Int]
  let tokenCount: Int

  /// - Parameter latents: [B, C, F, H, W].
  init(latents: [Int], patch: [Int]) {
    sampleCount = latents[0]
    self.patch = patch
    sizes = (0..<3).map { latents[2 + $0] / patch[$0] }
    tokenCount = sizes.reduce(1, *)
  }

  /// [B, C, F, H, W] of latents that are put together of patches.
  func latentShape(_ channelCount: Int) -> [Int] {
    [sampleCount, channelCount] + (0..<3).map { sizes[$0] * patch[$0] }
  }

  /// [B, C, F, H, W] → [B, L, C·pt·p·p], channels first.
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
  func latents<Scalar>(
    of patches: Value<Scalar>, _ order: ElementOrder = .channelsFirst, on tape: Tape<Scalar>
  ) -> Value<Scalar> {
    let channelCount = patches.shape[2] / patch.reduce(1, *)
    let (split, axes) =
      switch order {
      case .channelsFirst: ([channelCount] + patch, [0, 4, 1, 5, 2, 6, 3, 7])
      case .channelsLast: (patch + [channelCount], [0, 7, 1, 4, 2, 5, 3, 6])
      }
    return tape.permuted(patches.reshaped([sampleCount] + sizes + split), axes: axes)
      .reshaped(latentShape(channelCount))
  }
}
