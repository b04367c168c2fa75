// Which stretches of a video are trained on and which are held out.
//
// The tail of every video is held out, whole frames of it, so no held-out frame is ever seen in
// training: the default share, but at least one clip where the video has room for two. A video too
// short for two clips is trained on whole and has no held-out window.

import Basics

package struct ClipWindows: Hashable, Sendable {
  package let clipFrameCount: Int
  /// The frames that training may see, from 0.
  package let trainFrameCount: Int
  /// First frames of the windows that training draws from.
  package let trainStarts: Range<Int>
  /// First frames of the held-out windows; may be empty.
  package let heldOutStarts: Range<Int>

  /// - Precondition: the video holds at least one clip.
  package init(frameCount: Int, clipFrameCount: Int, heldOutShare: Double) {
    require(
      clipFrameCount > 0 && frameCount >= clipFrameCount,
      "a clip of \(clipFrameCount) frames from a video of \(frameCount)")
    let hasRoomForTwo = frameCount >= 2 * clipFrameCount && heldOutShare > 0
    let wanted = max(Int((Double(frameCount) * heldOutShare).rounded()), clipFrameCount)
    let heldOut = hasRoomForTwo ? min(wanted, frameCount - clipFrameCount) : 0
    self.clipFrameCount = clipFrameCount
    trainFrameCount = frameCount - heldOut
    trainStarts = 0..<(trainFrameCount - clipFrameCount + 1)
    let end = frameCount - clipFrameCount + 1
    heldOutStarts = heldOut > 0 ? trainFrameCount..<end : end..<end
  }
}
