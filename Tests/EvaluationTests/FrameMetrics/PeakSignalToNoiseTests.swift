import Evaluation
import Foundation
import Testing

@Suite struct PeakSignalToNoiseTests {
  @Test func `it agrees with scikit-image`() {
    let value = PeakSignalToNoise.decibels(fixtureClip(5), reference: fixtureClip(13))
    #expect(abs(value - 19.93476796181286) < 1e-12)
  }

  @Test func `a constant error of one level is 48.13 dB, equal clips are 100 dB`() {
    let one = PeakSignalToNoise.decibels(flatClip([10, 21]), reference: flatClip([11, 20]))
    #expect(abs(one - 20 * log10(255)) < 1e-12)
    #expect(PeakSignalToNoise.decibels(flatClip([9]), reference: flatClip([9])) == 100)
  }
}
