import DenseKernels
import Tensors
import Testing

struct ArenaTests {
  let booking = Booking(.generator, .activations)

  @Test func `a freed block is handed out again and booked each time`() {
    let arena = Arena()
    for _ in 0..<3 {
      let buffer = arena.allocate(Float.self, count: 1_000, booking: booking)
      #expect(buffer.count == 1_000)
      #expect(arena.ledger.liveByteCount(of: booking) == arena.reservedByteCount)
    }
    #expect(arena.ledger.liveByteCount(of: booking) == 0)
    #expect(arena.reservedByteCount >= 4_000 && arena.reservedByteCount < 4_128)
    arena.trim()
    #expect(arena.reservedByteCount == 0)
  }

  @Test func `under a limit free blocks go before a new one comes, the largest first`() {
    let arena = Arena(limit: 10_240)
    func use(_ byteCounts: Int...) {
      let buffers = byteCounts.map { arena.allocate(UInt8.self, count: $0, booking: booking) }
      #expect(buffers.map(\.count) == byteCounts)
    }
    use(4_096, 2_048, 1_024)
    #expect(arena.reservedByteCount == 7_168)
    // What fits beside free blocks leaves them alone.
    use(3_072)
    #expect(arena.reservedByteCount == 10_240)
    // 512 bytes are missing: one block of 4,096 is more than enough.
    use(512)
    #expect(arena.reservedByteCount == 10_240 - 4_096 + 512)
    // What is in use stays, whatever the limit.
    use(8_192, 4_096)
    #expect(arena.reservedByteCount == 12_288)
    #expect(arena.ledger.totalPeakByteCount == 12_288)
    // Nothing of a steady step is given back where all fits.
    use(8_192)
    #expect(arena.reservedByteCount == 12_288)
  }

  @Test func `blocks with pages of their own are aligned, zeroed when asked, and go`() {
    let arena = Arena(limit: 3 << 20)
    for count in [1 << 18, 300_000, 1 << 20] {
      let buffer = arena.allocate(Float.self, count: count, booking: booking)
      buffer.fill(with: 7)
      #expect(buffer.array.allSatisfy { $0 == 7 })
    }
    // 1, 1.2 and 4 MiB: the last alone passes the limit, the others went.
    #expect(arena.reservedByteCount == 4 << 20)
    let again = arena.allocate(Float.self, count: 1 << 20, booking: booking, zeroed: true)
    #expect(again.array.allSatisfy { $0 == 0 })
    #expect(arena.reservedByteCount == 4 << 20)
  }

  @Test func `a cut of a buffer keeps its block alive`() {
    let arena = Arena()
    var cut: Buffer<Float>? = arena.allocate(Float.self, count: 64, booking: booking)[3..<5]
    #expect(cut?.count == 2)
    #expect(arena.ledger.totalLiveByteCount == 256)
    cut = nil
    #expect(arena.ledger.totalLiveByteCount == 0)
  }

  @Test func `zeroed memory is zero although the block was used before`() {
    let arena = Arena()
    arena.allocate(Float.self, count: 100, booking: booking).fill(with: 7)
    let again = arena.allocate(Float.self, count: 100, booking: booking, zeroed: true)
    #expect(again.array == Array(repeating: 0, count: 100))
  }

  @Test func `peaks stay until they are reset and accounts are apart`() {
    let arena = Arena()
    let other = Booking(.fake, .optimizer)
    do {
      let first = arena.allocate(UInt8.self, count: 640, booking: booking)
      let second = arena.allocate(UInt8.self, count: 64, booking: other)
      #expect(first.count + second.count == 704)
    }
    #expect(arena.ledger.peakByteCount(of: booking) == 640)
    #expect(arena.ledger.peakByteCount(of: other) == 64)
    #expect(arena.ledger.totalPeakByteCount == 704)
    #expect(arena.ledger.entries.map(\.role) == [.fake, .generator])
    arena.resetPeaks()
    #expect(arena.ledger.totalPeakByteCount == 0)
    #expect(arena.ledger.entries.isEmpty)
  }

  @Test func `a block wastes at most a 64th or 64 bytes`() {
    for count in [0, 1, 63, 64, 65, 1_000, 4_097, 100_000, 12_345_678] {
      let arena = Arena()
      let buffer = arena.allocate(UInt8.self, count: count, booking: booking)
      let booked = arena.ledger.totalLiveByteCount
      #expect(booked >= buffer.count)
      #expect(booked - buffer.count <= max(64, count / 32), "\(count)")
    }
  }
}
