import Evaluation
import Testing

@Suite struct TemporalFlickeringTests {
  @Test func `black and white in turn score zero, a still scores one`() {
    #expect(TemporalFlickering.score(flatClip([0, 255, 0, 255])) == 0)
    #expect(TemporalFlickering.score(flatClip([7, 7, 7])) == 1)
    #expect(TemporalFlickering.score(flatClip([7])) == 1)
  }

  @Test func `a ramp of g levels scores 1 - g/255, forwards, backwards and brighter`() {
    let expected = (255.0 - 20) / 255
    #expect(TemporalFlickering.score(flatClip([10, 30, 50, 70])) == expected)
    #expect(TemporalFlickering.score(flatClip([70, 50, 30, 10])) == expected)
    #expect(TemporalFlickering.score(flatClip([110, 130, 150, 170])) == expected)
  }

  @Test func `the mean runs over values and pairs of frames`() {
    // Three frames of one pixel: differences 3, 0, 6 and 1, 2, 0.
    let clip = PixelClip(
      pixels: [10, 20, 30, 13, 20, 24, 12, 22, 24], frameCount: 3, height: 1, width: 1)
    #expect(TemporalFlickering.score(clip) == 253.0 / 255)
  }
}
