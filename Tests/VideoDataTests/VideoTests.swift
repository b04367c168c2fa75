import Testing

@testable import VideoData

@Suite struct VideoTests {
  let video = TestVideos.noise(frameCount: 3, height: 5, width: 7)

  @Test func `every byte survives the way to a number and back`() {
    for byte in UInt8.min...UInt8.max {
      #expect(Video.byte(of: Video.value(of: byte)) == byte)
    }
    #expect(Video.byte(of: -7) == 0)
    #expect(Video.byte(of: 7) == 255)
    #expect(Video.byte(of: .nan) == 0)
  }

  @Test func `mirroring and reversing move each pixel where it belongs`() {
    let mirrored = video.mirrored
    let reversed = video.reversed
    for frame in 0..<3 {
      for y in 0..<5 {
        for x in 0..<7 {
          let source = video.offset(frame: frame, y: y, x: x)
          for channel in 0..<3 {
            let byte = video.bytes[source + channel]
            #expect(mirrored.bytes[video.offset(frame: frame, y: y, x: 6 - x) + channel] == byte)
            #expect(reversed.bytes[video.offset(frame: 2 - frame, y: y, x: x) + channel] == byte)
          }
        }
      }
    }
    #expect(mirrored.mirrored == video)
    #expect(reversed.reversed == video)
  }

  @Test func `a crop holds the pixels of its rectangle`() {
    let crop = video.frames(1..<3).cropped(top: 2, left: 3, height: 2, width: 4)
    #expect((crop.frameCount, crop.height, crop.width) == (2, 2, 4))
    for frame in 0..<2 {
      for y in 0..<2 {
        for x in 0..<4 {
          let source = video.offset(frame: frame + 1, y: y + 2, x: x + 3)
          let target = crop.offset(frame: frame, y: y, x: x)
          #expect(crop.bytes[target..<target + 3] == video.bytes[source..<source + 3])
        }
      }
    }
  }

  @Test func `a sheet shows first and last frames between white gaps`() {
    let clips = [video, TestVideos.noise(frameCount: 3, height: 5, width: 7, sample: 1)]
    let sheet = ContactSheet.draw(clips, columnCount: 2, gap: 1)
    #expect((sheet.frameCount, sheet.height, sheet.width) == (1, 11, 15))
    for (row, clip) in clips.enumerated() {
      let left = sheet.cropped(top: row * 6, left: 0, height: 5, width: 7)
      let right = sheet.cropped(top: row * 6, left: 8, height: 5, width: 7)
      #expect(left == clip.frames(0..<1))
      #expect(right == clip.frames(2..<3))
    }
    #expect(sheet.cropped(top: 0, left: 7, height: 11, width: 1).bytes.allSatisfy { $0 == 255 })
  }
}
