import Basics
import Testing

struct EvenShareTests {
  /// LiteGen's loop: a running threshold, blocks counted from 1.
  private func chosen(_ count: Int, share: Double) -> [Int] {
    var threshold = 0.5
    return (1...count).filter { block in
      guard Double(block) * share >= threshold else { return false }
      threshold += 1
      return true
    }
  }

  @Test func `the chosen are those of the running threshold, and as many as the closed form says`()
  {
    for count in 1...48 {
      for share in [0, 0.125, 0.2, 0.25, 0.375, 0.5, 0.75, 0.8, 1] {
        let found = (0..<count).filter { isInEvenShare($0, share: share) }.map { $0 + 1 }
        #expect(found == chosen(count, share: share), "\(count) at \(share)")
        #expect(found.count == Int((Double(count) * share + 0.5).rounded(.down)))
      }
    }
    // Specification of Vchitect-2.0, §6.5: 24 blocks, three quarters kept.
    #expect(
      (0..<24).filter { isInEvenShare($0, share: 0.25) }.map { $0 + 1 } == [2, 6, 10, 14, 18, 22])
  }
}
