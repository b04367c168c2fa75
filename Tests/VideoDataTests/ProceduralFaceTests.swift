import Testing

@testable import VideoData

@Suite struct ProceduralFaceTests {
  @Test func `a frame depends on seed, person and time only`() {
    let long = ProceduralFace(seed: 1, person: 2).draw(frameCount: 6, height: 36, width: 44)
    let short = ProceduralFace(seed: 1, person: 2).draw(frameCount: 3, height: 36, width: 44)
    #expect(long.frames(0..<3) == short)
    #expect(short != ProceduralFace(seed: 1, person: 3).draw(frameCount: 3, height: 36, width: 44))
    #expect(short != ProceduralFace(seed: 2, person: 2).draw(frameCount: 3, height: 36, width: 44))
  }

  @Test func `neighboring frames are close, distant ones and other people are not`() {
    for person in 0..<4 {
      let video = ProceduralFace(seed: 0, person: person).draw(frameCount: 100)
      for frame in 1..<100 {
        let step = meanSquaredError(
          video.frames(frame - 1..<frame), video.frames(frame..<frame + 1))
        // A face that jumped by a tenth of its width would differ by more.
        #expect(step > 0 && step < 200, "person \(person), frame \(frame)")
      }
      #expect(meanSquaredError(video.frames(0..<1), video.frames(60..<61)) > 10)
      let other = ProceduralFace(seed: 0, person: person + 1).draw(frameCount: 1)
      #expect(meanSquaredError(video.frames(0..<1), other) > 300)
    }
  }
}
