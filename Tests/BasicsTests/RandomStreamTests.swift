import Basics
import Testing

struct RandomStreamTests {
  /// Known answers of Random123 (kat_vectors, philox4x32 10 rounds).
  @Test func `the block function gives the published answers`() {
    let zero = RandomStream(seed: 0, purpose: .init(rawValue: 0))
    #expect(zero.block(at: 0) == SIMD4(0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8))
    let ones = RandomStream(
      seed: .max, purpose: .init(rawValue: .max), step: 0xffff_ffff, sample: 0xffff_ffff)
    #expect(
      ones.block(at: 0xffff_ffff) == SIMD4(0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd))
  }

  @Test func `normals by index equal the bulk draw`() {
    let stream = RandomStream(seed: 7, purpose: .tests, step: 3, sample: 5)
    for count in 0..<9 {
      #expect(stream.normals(count: count) == (0..<count).map { Float(stream.normal(at: $0)) })
    }
  }

  @Test func `moments of a hundred thousand normals are those of N(0,1)`() {
    let draws = RandomStream(seed: 1, purpose: .tests).normals(count: 100_000).map(Double.init)
    let mean = draws.reduce(0, +) / 100_000
    let variance = draws.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 100_000
    // Four standard errors: 4/√n for the mean, 4·√(2/n) for the variance.
    #expect(abs(mean) < 0.0127)
    #expect(abs(variance - 1) < 0.0179)
  }

  @Test func `integers stay below their bound and reach every value`() {
    let stream = RandomStream(seed: 2, purpose: .tests)
    let seen = Set((0..<200).map { stream.integer(below: 7, at: $0) })
    #expect(seen == Set(0..<7))
  }
}
