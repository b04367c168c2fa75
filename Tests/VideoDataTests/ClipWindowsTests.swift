import Testing

@testable import VideoData

@Suite struct ClipWindowsTests {
  @Test func `windows fit, and no held-out frame is ever trained on`() {
    for clipFrameCount in [1, 5, 17] {
      for frameCount in clipFrameCount...120 {
        for share in [0, 0.2, 0.9] {
          let windows = ClipWindows(
            frameCount: frameCount, clipFrameCount: clipFrameCount, heldOutShare: share)
          let context: Comment = "\(frameCount) frames, clips of \(clipFrameCount), share \(share)"
          #expect(!windows.trainStarts.isEmpty, context)
          #expect(
            windows.trainStarts.upperBound - 1 + clipFrameCount == windows.trainFrameCount, context)
          #expect(windows.heldOutStarts.allSatisfy { $0 >= windows.trainFrameCount }, context)
          #expect(windows.heldOutStarts.allSatisfy { $0 + clipFrameCount <= frameCount }, context)
          let shouldHoldOut = share > 0 && frameCount >= 2 * clipFrameCount
          #expect(windows.heldOutStarts.isEmpty == !shouldHoldOut, context)
        }
      }
    }
  }

  @Test func `the share is a fifth of a long video and one clip of a short one`() {
    let long = ClipWindows(frameCount: 472, clipFrameCount: 17, heldOutShare: 0.2)
    #expect((long.trainFrameCount, long.heldOutStarts) == (378, 378..<456))
    let short = ClipWindows(frameCount: 72, clipFrameCount: 17, heldOutShare: 0.2)
    #expect((short.trainFrameCount, short.heldOutStarts) == (55, 55..<56))
  }
}
