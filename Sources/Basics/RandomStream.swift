// Counter-based random numbers (contract 4.1): a number is a pure function of
// (seed, purpose, step, sample, element). No stream has hidden state, so nothing depends on
// rank, layout or call order, and a resumed run draws what the undisturbed one would have drawn.
//
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC'11), Philox4x32-10.

import Foundation

/// What random numbers are drawn for. Two purposes never share a number.
package struct RandomPurpose: RawRepresentable, Hashable, Sendable {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }

  // The register of all purposes: a number once given is never reused for something else.
  package static let parameterInitialization = Self(rawValue: 1)
  package static let adapterInitialization = Self(rawValue: 2)
  package static let clipChoice = Self(rawValue: 3)
  package static let augmentation = Self(rawValue: 4)
  package static let conditionDropout = Self(rawValue: 5)
  package static let teachNoise = Self(rawValue: 6)
  package static let teachTime = Self(rawValue: 7)
  package static let rolloutNoise = Self(rawValue: 8)
  package static let rolloutDepth = Self(rawValue: 9)
  package static let scoreNoise = Self(rawValue: 10)
  package static let scoreTime = Self(rawValue: 11)
  package static let criticNoise = Self(rawValue: 12)
  package static let criticTime = Self(rawValue: 13)
  package static let adversarialNoise = Self(rawValue: 14)
  package static let adversarialTime = Self(rawValue: 15)
  package static let samplingNoise = Self(rawValue: 16)
  package static let proceduralVideo = Self(rawValue: 17)
  package static let featureNetwork = Self(rawValue: 18)
  package static let trueClipChoice = Self(rawValue: 19)
  package static let consistencyNoise = Self(rawValue: 20)
  package static let consistencyTime = Self(rawValue: 21)
  package static let rolloutRenoise = Self(rawValue: 22)
  package static let samplingRenoise = Self(rawValue: 23)
  package static let headInitialization = Self(rawValue: 24)
  package static let tests = Self(rawValue: 1_000)
  package static let benchmarks = Self(rawValue: 1_001)
}

/// An addressed sequence of random numbers, indexed by element.
package struct RandomStream: Sendable {
  package let seed: UInt64
  package let purpose: RandomPurpose
  package let step: UInt32
  package let sample: UInt32

  /// - Precondition: `step` and `sample` fit 32 bits.
  package init(seed: UInt64, purpose: RandomPurpose, step: Int = 0, sample: Int = 0) {
    self.seed = seed
    self.purpose = purpose
    self.step = UInt32(step)
    self.sample = UInt32(sample)
  }

  /// Four random words: the Philox4x32-10 block at `index`.
  package func block(at index: Int) -> SIMD4<UInt32> {
    var counter = SIMD4<UInt32>(UInt32(index), sample, step, purpose.rawValue)
    var key = SIMD2<UInt32>(
      UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32))
    for _ in 0..<10 {
      let low = UInt64(counter[0]) * 0xD251_1F53
      let high = UInt64(counter[2]) * 0xCD9E_8D57
      counter = SIMD4(
        UInt32(truncatingIfNeeded: high >> 32) ^ counter[1] ^ key[0],
        UInt32(truncatingIfNeeded: high),
        UInt32(truncatingIfNeeded: low >> 32) ^ counter[3] ^ key[1],
        UInt32(truncatingIfNeeded: low))
      key = SIMD2(key[0] &+ 0x9E37_79B9, key[1] &+ 0xBB67_AE85)
    }
    return counter
  }

  /// The random word of element `index`.
  package func word(at index: Int) -> UInt32 { block(at: index >> 2)[index & 3] }

  /// Uniform in (0, 1), never 0 or 1: the middle of one of 2³² equal cells.
  package func uniform(at index: Int) -> Double {
    (Double(word(at: index)) + 0.5) * 0x1p-32
  }

  /// Standard normal by Box and Muller: elements 2k and 2k+1 come from one pair of words.
  package func normal(at index: Int) -> Double {
    let pair = normals(ofPair: index >> 1)
    return index & 1 == 0 ? pair.0 : pair.1
  }

  /// An integer in `0..<count`, by multiplication (bias below count / 2³²).
  package func integer(below count: Int, at index: Int) -> Int {
    require(count > 0, "cannot choose among \(count) values")
    return Int((UInt64(word(at: index)) * UInt64(count)) >> 32)
  }

  /// The first `count` standard normals of the stream, in Float32.
  package func normals(count: Int) -> [Float] {
    var result = [Float]()
    result.reserveCapacity(count + 3)
    for blockIndex in 0..<((count + 3) / 4) {
      let words = block(at: blockIndex)
      for pair in 0..<2 {
        let (first, second) = Self.boxMuller(words[2 * pair], words[2 * pair + 1])
        result.append(Float(first))
        result.append(Float(second))
      }
    }
    result.removeLast(result.count - count)
    return result
  }

  private func normals(ofPair pair: Int) -> (Double, Double) {
    let words = block(at: pair >> 1)
    let offset = (pair & 1) * 2
    return Self.boxMuller(words[offset], words[offset + 1])
  }

  private static func boxMuller(_ first: UInt32, _ second: UInt32) -> (Double, Double) {
    let radius = (-2 * log((Double(first) + 0.5) * 0x1p-32)).squareRoot()
    let angle = 2 * Double.pi * (Double(second) + 0.5) * 0x1p-32
    return (radius * cos(angle), radius * sin(angle))
  }
}
