import Testing

@testable import VideoData

@Suite struct MotionWindowTests {
  /// Frames that are gray but for one bright column (or row) that blinks.
  func blinking(at place: Int, height: Int, width: Int, alongWidth: Bool) -> Video {
    var bytes: [UInt8] = []
    for frame in 0..<4 {
      for y in 0..<height {
        for x in 0..<width {
          let isThere = (alongWidth ? x : y) == place
          bytes += Array(repeating: isThere && frame % 2 == 1 ? 255 : 90, count: 3)
        }
      }
    }
    return Video(frameCount: 4, height: height, width: width, bytes: bytes)
  }

  @Test
  func `what moves comes to lie in the middle of the kept window, as far as the frame allows`() {
    for place in 0..<20 {
      let wide = blinking(at: place, height: 8, width: 20, alongWidth: true)
      // Both middle places of a window of ten are as good.
      let choices = [place - 5, place - 4].map { min(max($0, 0), 10) }
      let left = abs(choices[0] - 5) < abs(choices[1] - 5) ? choices[0] : choices[1]
      let expected = wide.cropped(top: 0, left: left, height: 8, width: 10)
      #expect(MotionWindow.crop(wide, maximumLongSide: 10) == expected, "column \(place)")
      let tall = blinking(at: place, height: 20, width: 8, alongWidth: false)
      let expectedTall = tall.cropped(top: left, left: 0, height: 10, width: 8)
      #expect(MotionWindow.crop(tall, maximumLongSide: 10) == expectedTall, "row \(place)")
    }
  }

  @Test func `a still picture keeps its middle, a short one everything`() {
    let still = Video(
      frameCount: 1, height: 4, width: 11, bytes: (0..<132).map { UInt8($0) })
    #expect(
      MotionWindow.crop(still, maximumLongSide: 5)
        == still.cropped(top: 0, left: 3, height: 4, width: 5))
    #expect(MotionWindow.crop(still, maximumLongSide: 11) == still)
  }
}
