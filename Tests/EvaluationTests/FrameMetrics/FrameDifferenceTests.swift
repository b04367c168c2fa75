import Evaluation
import Testing

@Suite struct FrameDifferenceTests {
  /// Two frames, three rows, one column; channels equal.
  private let clip = PixelClip(
    pixels: [10, 20, 60, 13, 13, 53].flatMap { [UInt8](repeating: $0, count: 3) }, frameCount: 2,
    height: 3, width: 1)

  @Test func `motion is the mean difference in time`() {
    #expect(FrameDifference.motion(clip) == 17.0 / 3 / 255)
  }

  @Test func `sharpness is the mean difference of rows, never across frames`() {
    // 10, 40 in the first frame, 0, 40 in the second.
    #expect(FrameDifference.sharpness(clip) == 90.0 / 4 / 255)
  }

  @Test func `one frame does not move and one row is not sharp`() {
    let single = PixelClip(pixels: [1, 2, 3, 200, 0, 9], frameCount: 1, height: 1, width: 2)
    #expect(FrameDifference.motion(single) == 0)
    #expect(FrameDifference.sharpness(single) == 0)
  }
}
