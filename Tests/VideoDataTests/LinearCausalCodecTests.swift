import DenseKernels
import Foundation
import TestSupport
import Testing

@testable import VideoData

@Suite struct LinearCausalCodecTests {
  static let faces = (0..<3).map { ProceduralFace(seed: 7, person: $0).draw(frameCount: 40) }
  static let codec = Result { try fit() }

  static func fit(patchLimit: Int = 4_000) throws -> LinearCausalCodec {
    try LinearCausalCodec(
      fittedOn: faces.map { .init($0, frameCount: 30) }, cropSize: 64, patchLimit: patchLimit)
  }

  /// Frames 20..<20 + count of a face, which training saw in part.
  func clip(_ frameCount: Int, person: Int = 0, start: Int = 20) -> Video {
    Self.faces[person].frames(start..<start + frameCount)
      .cropped(top: 4, left: 12, height: 64, width: 64)
  }

  @Test func `moments are the exact sums of a plain loop`() {
    let video = TestVideos.noise(frameCount: 9, height: 13, width: 19)
    for depth in [1, 4] {
      let geometry = PatchGeometry(depth: depth, side: 4)
      var moments = PatchMoments(geometry)
      moments.add(video, frameCount: 8, cropSize: 100, limit: 1_000_000)
      var patches: [[Int]] = []
      for start in 0...8 - depth {
        for top in stride(from: 0, through: 9, by: 4) {
          for left in stride(from: 0, through: 15, by: 4) {
            let patch = video.frames(start..<start + depth)
              .cropped(top: top, left: left, height: 4, width: 4)
            patches.append(patch.bytes.map { Int($0) })
          }
        }
      }
      let width = geometry.width
      let (mean, second) = moments.normalized
      #expect(moments.patchCount == patches.count)
      for row in 0..<width {
        let sum = patches.reduce(0) { $0 + $1[row] }
        #expect(mean[row] == Double(sum) / Double(patches.count))
        for column in stride(from: row % 5, to: width, by: 5) {
          let product = patches.reduce(0) { $0 + $1[row] * $1[column] }
          #expect(second[row * width + column] == Double(product) / Double(patches.count))
        }
      }
    }
  }

  @Test func `crops to fit on lie everywhere that a crop may lie`() {
    var bytes: [UInt8] = []
    for _ in 0..<80 { for y in 0..<8 { for x in 0..<10 { bytes += [UInt8(y), UInt8(x), 0] } } }
    let video = Video(frameCount: 80, height: 8, width: 10, bytes: bytes)
    var moments = PatchMoments(PatchGeometry(depth: 1, side: 4))
    moments.add(video, frameCount: 80, cropSize: 4, limit: 80)
    #expect(moments.patchCount == 80)
    // Red is the row, green the column of a patch's corner: uniform over 0...4 and 0...6 they have
    // means 2 and 3 and second moments 6 and 13; an even spread of 80 comes within some per cent.
    let (mean, second) = moments.normalized
    #expect(abs(mean[0] - 2) < 0.15 && abs(mean[1] - 3) < 0.15)
    #expect(abs(second[0] - 6) < 0.6 && abs(second[49] - 13) < 1)
  }

  @Test func `components are orthonormal`() throws {
    let codec = try Self.codec.get()
    for components in [codec.first, codec.group] {
      let width = components.mean.count
      for a in 0..<16 {
        for b in 0...a {
          let product = (0..<width).reduce(0.0) {
            $0 + Double(components.basis[a * width + $1]) * Double(components.basis[b * width + $1])
          }
          // Each of at most 192 entries is rounded to Float32 (2⁻²⁴ relative).
          #expect(abs(product - (a == b ? 1 : 0)) < 1e-6, "rows \(a), \(b)")
        }
        if a > 0 { #expect(components.deviations[a] <= components.deviations[a - 1]) }
      }
    }
  }

  @Test func `held-out faces come back at more than 28 dB`() throws {
    let codec = try Self.codec.get()
    let clips = (0..<3).map { clip(17, person: $0, start: 23) }
    let psnr = try #require(codec.reconstructionPSNR(of: clips))
    #expect(psnr > 28, "\(psnr) dB")
  }

  @Test func `encoding is the formula, computed by plain loops`() throws {
    let codec = try Self.codec.get()
    let clip = clip(5)
    let latents = codec.encode(clip)
    #expect(latents.shape == [16, 2, 16, 16])
    for (frame, components) in [codec.first, codec.group].enumerated() {
      let depth = components.depth
      for place in stride(from: 0, to: 256, by: 37) {
        let patch = clip.frames(frame..<frame + depth)
          .cropped(top: place / 16 * 4, left: place % 16 * 4, height: 4, width: 4)
        for channel in 0..<16 {
          let sum = patch.bytes.indices.reduce(0.0) {
            let pixel = Double(patch.bytes[$1]) / 127.5 - 1
            return $0 + (pixel - Double(components.mean[$1]))
              * Double(components.basis[channel * patch.bytes.count + $1])
          }
          let actual = Double(latents.values[(channel * 2 + frame) * 256 + place])
          let deviation = Double(components.deviations[channel])
          // 192 products of pixels up to 2 in Float32, divided by the deviation.
          #expect(abs(actual - sum / deviation) < 4e-5 / deviation, "frame \(frame), \(channel)")
        }
      }
    }
  }

  @Test func `decoding inverts encoding on clips that the components span`() throws {
    let codec = try Self.codec.get()
    let first = codec.encode(clip(9))
    // decode(z) lies in the span, so its components are z again, but for rounding.
    let pixels = codec.decodeValues(first)
    #expect(pixels.count == 9 * 64 * 64 * 3)
    for (frame, components) in [(0, codec.first), (1, codec.group), (2, codec.group)] {
      for place in [0, 100, 255] {
        for channel in 0..<16 {
          var sum = 0.0
          for t in 0..<components.depth {
            for y in 0..<4 {
              for x in 0..<12 {
                let row = (frame == 0 ? 0 : frame * 4 - 3) + t
                let index = ((row * 64) + place / 16 * 4 + y) * 192 + place % 16 * 12 + x
                let inPatch = (t * 4 + y) * 12 + x
                sum +=
                  Double(pixels[index] - components.mean[inPatch])
                  * Double(components.basis[channel * components.mean.count + inPatch])
              }
            }
          }
          let deviation = Double(components.deviations[channel])
          let expected = Double(first.values[(channel * 3 + frame) * 256 + place])
          #expect(abs(sum / deviation - expected) < 4e-5 / deviation, "\(frame) \(channel)")
        }
      }
    }
  }

  @Test func `latents have about zero mean and unit variance over the sampler's clips`() throws {
    let windows = ClipWindows(frameCount: 40, clipFrameCount: 17, heldOutShare: 0)
    let sampler = ClipSampler(
      sources: Self.faces.map { .init(height: $0.height, width: $0.width, windows: windows) },
      seed: 2, cropSize: 64, mirrors: true, reverses: true)
    let codec = try LinearCausalCodec(
      fittedOn: Self.faces.map { .init($0, frameCount: 40) }, cropSize: 64, patchLimit: 1_000_000)
    var sums = [[Double]](repeating: Array(repeating: 0, count: 32), count: 2)
    let clipCount = 150
    for counter in 0..<clipCount {
      let sample = sampler.sample(at: counter)
      var clip = Self.faces[sample.source].frames(sample.start..<sample.start + 17)
        .cropped(top: sample.top, left: sample.left, height: 64, width: 64)
      if sample.isMirrored { clip = clip.mirrored }
      if sample.isReversed { clip = clip.reversed }
      let values = codec.encode(clip).values
      for channel in 0..<16 {
        for frame in 0..<5 {
          let slot = (frame == 0 ? 0 : 16) + channel
          let weight = frame == 0 ? 1.0 : 0.25
          for index in (channel * 5 + frame) * 256..<(channel * 5 + frame + 1) * 256 {
            let value = Double(values[index])
            sums[0][slot] += weight * value / Double(clipCount * 256)
            sums[1][slot] += weight * value * value / Double(clipCount * 256)
          }
        }
      }
    }
    for slot in 0..<32 {
      // Windows weigh the middle of a video more than the fit does, and 150 clips of three people
      // are few: a few per cent of sampling error.
      #expect(abs(sums[0][slot]) < 0.1, "mean of \(slot)")
      #expect(abs(sums[1][slot] - 1) < 0.2, "variance of \(slot)")
    }
  }

  @Test func `fitting twice gives the same bits, and each row's largest entry is positive`() throws
  {
    let codec = try Self.codec.get()
    #expect(try Self.fit() == codec)
    for components in [codec.first, codec.group] {
      for channel in 0..<16 {
        let row = components.basis[
          channel * components.mean.count..<(channel + 1) * components.mean.count]
        let largest = row.map(abs).max() ?? 0
        // Mirrored pairs are equal up to rounding; the first of them decides.
        #expect(row.first { abs($0) > largest * 0.999_999 } ?? -1 > 0)
      }
    }
  }

  @Test func `a latent frame depends on its own and no later frames, to the bit`() throws {
    let codec = try Self.codec.get()
    let clip = clip(17)
    let latents = codec.encode(clip)
    for latentFrame in 0..<5 {
      let kept = 1 + 4 * latentFrame
      let other = TestVideos.noise(frameCount: 17 - kept, height: 64, width: 64)
      let changed = Video(
        frameCount: 17, height: 64, width: 64,
        bytes: clip.frames(0..<kept).bytes + other.bytes)
      let after = codec.encode(changed)
      let short = codec.encode(clip.frames(0..<kept))
      for channel in 0..<16 {
        for frame in 0..<5 {
          let range = (channel * 5 + frame) * 256..<(channel * 5 + frame + 1) * 256
          let isEqual = latents.values[range] == after.values[range]
          #expect(isEqual == (frame <= latentFrame), "latent frame \(frame), kept \(latentFrame)")
          if frame <= latentFrame {
            let start = (channel * short.frameCount + frame) * 256
            #expect(short.values[start..<start + 256] == latents.values[range])
          }
        }
      }
    }
  }

  @Test func `a video without any variance encodes to finite numbers and comes back`() throws {
    let gray = Video(
      frameCount: 9, height: 16, width: 20, bytes: Array(repeating: 77, count: 9 * 16 * 20 * 3))
    let codec = try LinearCausalCodec(fittedOn: [.init(gray, frameCount: 9)], cropSize: 16)
    let latents = codec.encode(gray)
    #expect(latents.shape == [16, 3, 4, 5])
    #expect(latents.values.allSatisfy { $0.isFinite })
    #expect(codec.decode(latents) == gray)
  }

  @Test func `reading what was written gives the same codec`() throws {
    let codec = try Self.codec.get()
    try withTemporaryFolder { folder in
      let file = folder.appending(path: "codec.safetensors")
      try codec.write(to: file)
      #expect(try LinearCausalCodec(loading: file) == codec)
    }
  }
}
