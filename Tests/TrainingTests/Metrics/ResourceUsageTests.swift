import Testing

@testable import Training

@Suite struct ResourceUsageTests {
  @Test func `fields are found behind a name with spaces and parentheses`() {
    let usage = ResourceUsage(
      status: "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n",
      stat: "12 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0", ticksPerSecond: 100)
    #expect(usage?.peakByteCount == 2 << 20)
    #expect(usage?.residentByteCount == 1 << 20)
    #expect(usage?.cpuSeconds == 3)
  }

  @Test func `broken text is no usage`() {
    #expect(ResourceUsage(status: "", stat: "1 (a) S", ticksPerSecond: 100) == nil)
    #expect(
      ResourceUsage(status: "VmHWM: 1 kB\nVmRSS: 1 kB", stat: "1 (a) S 1", ticksPerSecond: 1) == nil
    )
  }

  #if os(Linux)
    @Test func `this process uses memory, and more after touching some`() throws {
      let before = try #require(ResourceUsage.current())
      let block = [UInt64](repeating: 0x5555, count: 8 << 20)
      let after = try #require(ResourceUsage.current())
      #expect(block.reduce(0, ^) == 0)
      #expect(before.peakByteCount > 1 << 20 && before.peakByteCount >= before.residentByteCount)
      #expect(after.peakByteCount >= before.peakByteCount)
      #expect(after.peakByteCount >= 64 << 20)
      #expect(after.cpuSeconds >= before.cpuSeconds)
    }
  #endif
}
