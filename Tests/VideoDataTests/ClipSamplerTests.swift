import Basics
import Testing

@testable import VideoData

@Suite struct ClipSamplerTests {
  let sources = [
    ClipSampler.Source(
      height: 10, width: 12,
      windows: ClipWindows(frameCount: 40, clipFrameCount: 5, heldOutShare: 0.2)),
    ClipSampler.Source(
      height: 11, width: 9,
      windows: ClipWindows(frameCount: 7, clipFrameCount: 5, heldOutShare: 0.2)),
  ]

  func sampler(seed: UInt64 = 5, mirrors: Bool = true, reverses: Bool = true) -> ClipSampler {
    ClipSampler(sources: sources, seed: seed, cropSize: 8, mirrors: mirrors, reverses: reverses)
  }

  @Test func `a sample depends on seed and counter, not on what was drawn before`() {
    let forward = (0..<200).map { sampler().sample(at: $0) }
    let one = sampler()
    for counter in (0..<200).reversed() { #expect(one.sample(at: counter) == forward[counter]) }
    #expect(forward != (0..<200).map { sampler(seed: 6).sample(at: $0) })
    #expect(forward != (0..<200).map { one.sample(at: $0, purpose: .trueClipChoice) })
    #expect(one.sample(at: 1 << 31) != one.sample(at: 0))
  }

  @Test func `every window, crop and turn is drawn, and nothing outside`() {
    let samples = (0..<6000).map { sampler().sample(at: $0) }
    for (number, source) in sources.enumerated() {
      let own = samples.filter { $0.source == number }
      // 3000 of 6000 expected, standard deviation 39.
      #expect(abs(own.count - 3000) < 200)
      #expect(Set(own.map(\.start)) == Set(source.windows.trainStarts))
      #expect(Set(own.map(\.top)) == Set(0...source.height - 8))
      #expect(Set(own.map(\.left)) == Set(0...source.width - 8))
    }
    for mirrored in [false, true] {
      for reversed in [false, true] {
        let count = samples.count { $0.isMirrored == mirrored && $0.isReversed == reversed }
        // 1500 expected, standard deviation 34.
        #expect(abs(count - 1500) < 170)
      }
    }
  }

  @Test func `turns that are switched off never happen`() {
    let plain = sampler(mirrors: false, reverses: false)
    #expect((0..<100).allSatisfy { !plain.sample(at: $0).isMirrored })
    #expect((0..<100).allSatisfy { !plain.sample(at: $0).isReversed })
  }

  @Test func `held-out samples are whole, centered and beyond the training frames`() {
    let samples = sampler().heldOutSamples(spacing: 2)
    #expect(samples.map(\.start) == [32, 34])
    #expect(samples.allSatisfy { $0.source == 0 && $0.top == 1 && $0.left == 2 })
    #expect(sampler().heldOutSamples().map(\.start) == [32])
  }
}
