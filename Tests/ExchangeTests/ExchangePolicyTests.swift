import Compression
import Testing

@testable import Exchange

struct ExchangePolicyTests {
  /// A policy that has measured a codec of ratio 1.2 (3 GB/s in, 6 GB/s out) and a link.
  private func measured(linkRate: Double, ratio: Double = 1.2) -> ExchangePolicy {
    var policy = ExchangePolicy(coding: .auto, isOneNode: false)
    let raw = 1_200_000
    policy.recordEncoding(
      .reduceScatter, .gradients, rawByteCount: raw, codedByteCount: Int(Double(raw) / ratio),
      seconds: Double(raw) / 3e9)
    policy.recordDecoding(
      .reduceScatter, .gradients, rawByteCount: raw, seconds: Double(raw) / 6e9)
    policy.recordTransfer(.reduceScatter, .gradients, wireByteCount: 1_000, seconds: 1e3 / linkRate)
    return policy
  }

  @Test func `the break-even is that of the published example`() {
    // 1.39 at 2.4 GB/s in and 5.8 GB/s out: 0.28 / (0.4167 + 0.1724) = 0.476 GB/s.
    let rate = ExchangePolicy.breakEven(ratio: 1.39, encodeRate: 2.4e9, decodeRate: 5.8e9)
    #expect(rate > 0.475e9 && rate < 0.478e9)
  }

  @Test func `coding is chosen below the break-even and not above`() {
    // (1 - 1/1.2) / (1/3 + 1/6) = 1/3 GB/s.
    for (linkRate, codec) in [(0.30e9, Codec.planes), (0.36e9, .off)] {
      var policy = measured(linkRate: linkRate)
      let decision = policy.decide(.reduceScatter, .gradients, candidate: .planes)
      #expect(decision.codec == codec)
      #expect(decision.reason.contains("break-even 0.333 GB/s"), "\(decision)")
      #expect(policy.decisions == [decision])
    }
  }

  @Test func `a message that is coded once for many peers pays earlier`() {
    var policy = measured(linkRate: 0.8e9)
    // With seven peers (1 - 1/1.2) / (1/21 + 1/6) = 0.777 GB/s: still not; with none it is 0.333.
    #expect(
      policy.decide(.reduceScatter, .gradients, candidate: .planes, peerCount: 7).codec == .off)
    policy = measured(linkRate: 0.7e9)
    #expect(
      policy.decide(.reduceScatter, .gradients, candidate: .planes, peerCount: 7).codec == .planes)
    #expect(policy.decide(.reduceScatter, .gradients, candidate: .planes).codec == .off)
  }

  @Test func `words that do not shrink are sent raw over the slowest link`() {
    var policy = measured(linkRate: 1e3, ratio: 0.999)
    #expect(policy.decide(.reduceScatter, .gradients, candidate: .planes).codec == .off)
  }

  @Test func `kinds of traffic are measured apart`() {
    var policy = measured(linkRate: 9e9)
    #expect(policy.decide(.reduceScatter, .gradients, candidate: .planes).codec == .off)
    let other = policy.decide(.allGather, .movingAverages, candidate: .deltaPlanes)
    #expect(other.codec == .deltaPlanes)
    #expect(other.reason == "measuring link and codec")
  }

  @Test func `an abandoned codec is measured again now and then`() {
    var policy = measured(linkRate: 9e9)
    let codecs = (0..<2 * ExchangePolicy.probeInterval).map { _ in
      policy.decide(.reduceScatter, .gradients, candidate: .planes).codec
    }
    #expect(codecs.filter { $0 == .planes }.count == 2)
  }

  @Test func `inside one node and when told so nothing is coded`() {
    var policy = ExchangePolicy(coding: .auto, isOneNode: true)
    let decision = policy.decide(.reduceScatter, .gradients, candidate: .planes)
    #expect(decision.codec == .off && decision.reason == "all ranks share one node's memory")
    #expect(!policy.mayCode)
    policy = ExchangePolicy(coding: .off, isOneNode: false)
    #expect(policy.decide(.allGather, .parameters, candidate: .planes).codec == .off)
    policy = ExchangePolicy(coding: .planes, isOneNode: true)
    #expect(policy.decide(.allGather, .parameters, candidate: .planes).codec == .planes)
  }
}
