import Testing

@testable import VideoData

@Suite struct FrameErrorTests {
  @Test func `an error of one step everywhere has a PSNR of 20 log 255`() {
    let dark = Video(frameCount: 2, height: 2, width: 2, bytes: Array(repeating: 7, count: 24))
    let light = Video(frameCount: 2, height: 2, width: 2, bytes: Array(repeating: 8, count: 24))
    #expect(meanSquaredError(dark, light) == 1)
    // 20 log10(255) = 48.1308 dB; the bound is one unit in the last digit given.
    #expect(abs(peakSignalToNoise(dark, light) - 48.1308) < 1e-4)
    #expect(peakSignalToNoise(dark, dark) == 100)
    #expect(peakSignalToNoise(meanSquaredError: 1e-300) == 100)
  }
}
